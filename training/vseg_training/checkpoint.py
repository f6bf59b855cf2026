# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Reading a checkpoint of ``vseg-train fit`` without trusting it."""
import logging

import torch

from .models.student import Student
from .recipe import from_dict, load_recipe
from .task import build_network


log = logging.getLogger(__name__)
_SCALED = ('attention.theta.', 'attention.phi.')
_CONTEXT = ('prototypes.', 'attention.')


def _read(path):
    """(network state, class weights, recipe) of a checkpoint."""
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        recipe = from_dict(checkpoint['hyper_parameters']['recipe'])
        state = {key.removeprefix('network.'): value
                 for key, value in checkpoint['state_dict'].items()
                 if key.startswith('network.')}
        return state, checkpoint['state_dict']['class_weights'], recipe
    except FileNotFoundError:
        raise ValueError(
            f'checkpoint {path} does not exist: train one by vseg-train fit') from None
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path, error):
    return ValueError(f'{path} is not a checkpoint of vseg-train fit, or is damaged '
                      f'({type(error).__name__}: {str(error).splitlines()[0]})')


def load_network(path, adjust=True):
    """
    Network in eval mode and its recipe, from a checkpoint of ``vseg-train fit``.

    The averaged weights are taken. adjust: apply the recipe's logit adjustment. ValueError names
    a file that is not such a checkpoint.
    """
    state, class_weights, recipe = _read(path)
    network = build_network(recipe)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _damaged(path, error) from error
    if adjust:
        for head in network.heads:
            head.classify.bias.data -= class_weights.log() * recipe.loss.logit_adjustment
    return network.eval(), recipe


def load_student(path):
    """Student of a checkpoint and its recipe; ValueError if the checkpoint holds a teacher."""
    return _student(*load_network(path), path)


def untrained_student(path):
    """Student with random weights and its recipe, of a recipe: to measure what it costs to run."""
    recipe = load_recipe(path)
    recipe.name += '_untrained'
    return _student(build_network(recipe).eval(), recipe, path)


def _student(network, recipe, path):
    if not isinstance(network, Student):
        raise ValueError(f'{path} holds a teacher, which no bundle can run: distil a student from '
                         'it (distill.teacher) and take its checkpoint')
    return network, recipe


def initialise(network, path):
    """
    Start a network from a checkpoint's weights (``model.init``).

    Every weight of the same name and shape is taken; the streams of a teacher all start from a
    student's head, and a student's head from a teacher's first stream. Prototypes and attention
    are taken only from a network of the same form of attention, theta and phi only from one of the
    same scale. ValueError if nothing fits.
    """
    state, _, recipe = _read(path)
    model, attention = recipe.model, network.attention
    same_form = (model.attention, model.positions) == (
        getattr(attention, 'form', None), network.positions)
    same_scale = model.attention_scale == getattr(attention, 'scale', None)
    taken = {}
    for key, own in network.state_dict().items():
        if key.startswith(_CONTEXT) and not same_form:
            continue  # the new form needs its own start
        if key.startswith(_SCALED) and not same_scale:
            continue  # scores of another scale: what made them saturate would do so again
        part, _, rest = key.partition('.')
        other = {'heads': 'head.' + rest.partition('.')[2], 'head': f'heads.0.{rest}'}.get(part)
        value = state.get(key, state.get(other))
        if value is not None and value.shape == own.shape:
            taken[key] = value
    if not taken:
        raise ValueError(f'model.init: no weight of {path} fits this network')
    network.load_state_dict(taken, strict=False)
    log.info('took %d of %d weights from %s', len(taken), len(network.state_dict()), path)
