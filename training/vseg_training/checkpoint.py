# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Reading a checkpoint of ``vseg-train fit`` without trusting it."""
from collections.abc import Sequence
import logging
from pathlib import Path
from typing import NamedTuple

from torch import nn, Tensor

from ros_vseg.labels import load_label_set

from .models.kinds import Exportable, Network
from .models.options import Model
from .models.per_frame import PerFrame
from .models.tasks import of_classes, outputs_of, with_known
from .models.teacher import Teacher
from .recipe import from_dict, load_recipe, Recipe
from .resume import read_whole
from .task import build_network


log = logging.getLogger(__name__)
_SCALED = ('attention.theta.', 'attention.phi.')
_CONTEXT = ('prototypes.', 'attention.')


class _Stored(NamedTuple):
    state: dict[str, Tensor]  # of the network
    class_weights: Tensor  # float [K]
    recipe: Recipe


def _read(path: str | Path) -> _Stored:
    """Read a checkpoint; ValueError names a file that is not one."""
    try:
        checkpoint = read_whole(path)
        recipe = from_dict(checkpoint['hyper_parameters']['recipe'])
        state = {key.removeprefix('network.'): value
                 for key, value in checkpoint['state_dict'].items()
                 if key.startswith('network.')}
        return _Stored(state, checkpoint['state_dict']['class_weights'], recipe)
    except FileNotFoundError:
        raise ValueError(
            f'checkpoint {path} does not exist: train one by vseg-train fit') from None
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: str | Path, error: Exception) -> ValueError:
    return ValueError(f'{path} is not a checkpoint of vseg-train fit, or is damaged '
                      f'({type(error).__name__}: {next(iter(str(error).splitlines()), "")})')


def load_network(path: str | Path, adjust: bool = True) -> tuple[Network, Recipe]:
    """
    Load a network in eval mode and its recipe.

    Args:
        path: Checkpoint of ``vseg-train fit``, of which the averaged weights are taken.
        adjust: Whether to apply the recipe's logit adjustment.

    Raises:
        ValueError: The file is not such a checkpoint.
    """
    stored = _read(path)
    recipe = stored.recipe
    network = build_network(recipe)
    try:
        network.load_state_dict(stored.state)
    except RuntimeError as error:
        raise _damaged(path, error) from error
    if adjust:
        shift_scores(network, -stored.class_weights.log() * recipe.loss.logit_adjustment)
    return network.eval(), recipe


def shift_scores(network: Network, shift: Tensor) -> None:
    """Add a number to the scores of each class [K], in the biases of a network's heads."""
    for head in network.heads:
        of_classes(head.get_submodule('classify'), network.num_classes)[1].add_(shift)


def load_student(path: str | Path) -> tuple[Exportable, Recipe]:
    """
    Load a student in eval mode and its recipe.

    Raises:
        ValueError: The file is not a checkpoint of ``vseg-train fit``, or it holds a teacher.
    """
    network, recipe = load_network(path)
    return _student(network, path), recipe


def untrained_student(path: str | Path) -> tuple[Exportable, Recipe]:
    """Build a recipe's student with random weights, to measure what it costs to run."""
    recipe = load_recipe(path)
    recipe.name += '_untrained'
    return _student(build_network(recipe).eval(), path), recipe


def _student(network: Network, path: str | Path) -> Exportable:
    if isinstance(network, Teacher):
        raise ValueError(f'{path} holds a teacher, which no bundle can run: distil a student from '
                         'it (distill.teacher) and take its checkpoint')
    return network


def initialise(network: Network, path: str | Path, classes: Sequence[str]) -> None:
    """
    Start a network from a checkpoint's weights (``model.init``).

    Every weight of the same name and shape is taken; the streams of a teacher all start from a
    student's head, and a student's head from a teacher's first stream. Prototypes and attention
    are taken only from a network of the same form of attention, theta and phi only from one of the
    same scale, and of last layers the channels of classes, bins and normals that both have.

    Args:
        network: To start.
        path: Checkpoint of ``vseg-train fit``.
        classes: Names of the network's classes.

    Raises:
        ValueError: The file is not a checkpoint of ``vseg-train fit``, or no weight fits.
    """
    state, _, recipe = _read(path)
    same_form = same_scale = False
    if isinstance(recipe.model, Model) and not isinstance(network, PerFrame):
        model, attention = recipe.model, network.attention
        same_form = (model.attention, model.positions) == (
            getattr(attention, 'form', None), network.positions)
        same_scale = model.attention_scale == getattr(attention, 'scale', None)
    its_classes = load_label_set(recipe.data.label_set).names
    wanted = outputs_of(classes, network.tasks)
    known = outputs_of(its_classes, recipe.tasks)
    same_classes = list(classes) == list(its_classes)
    taken = {}
    for key, own in network.state_dict().items():
        if key.startswith(_CONTEXT) and not same_form:
            continue  # the new form needs its own start
        if key.startswith(_SCALED) and not same_scale:
            continue  # scores of another scale: what made them saturate would do so again
        value = state.get(key, state.get(_other_name(key)))
        if value is not None and key.startswith('head') and '.classify.' in key:
            transposed = isinstance(
                network.get_submodule(key.rpartition('.')[0]), nn.ConvTranspose2d)
            value = with_known(own, wanted, value, known, int(transposed and own.ndim > 1))
        elif (key.startswith('auxiliary') and not same_classes
                and list(own.shape[:1]) == [len(classes)]):
            continue  # what ends an auxiliary head has no names
        if value is not None and value.shape == own.shape:
            taken[key] = value
    if not taken:
        raise ValueError(f'model.init: no weight of {path} fits this network')
    network.load_state_dict(taken, strict=False)
    log.info('took %d of %d weights from %s', len(taken), len(network.state_dict()), path)


def _other_name(key: str) -> str:
    """Name of a head's weight in the other kind of network; '' for what is not of a head."""
    part, _, rest = key.partition('.')
    if part == 'head':
        return f'heads.0.{rest}'
    if part == 'heads':
        return 'head.' + rest.partition('.')[2]
    return ''
