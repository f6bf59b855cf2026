# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Reading a checkpoint of ``vseg-train fit`` without trusting it."""
import torch

from .recipe import from_dict
from .train import build_student


def load_student(path):
    """
    Student in eval mode and its recipe, from a checkpoint of ``vseg-train fit``.

    The averaged weights are taken, with the recipe's logit adjustment. ValueError names a file
    that is not such a checkpoint.
    """
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        recipe = from_dict(checkpoint['hyper_parameters']['recipe'])
        state = {key.removeprefix('student.'): value
                 for key, value in checkpoint['state_dict'].items()
                 if key.startswith('student.')}
        student = build_student(recipe)
        student.load_state_dict(state)
        shift = checkpoint['state_dict']['class_weights'].log() * recipe.loss.logit_adjustment
        student.head.classify.bias.data -= shift
    except FileNotFoundError:
        raise ValueError(
            f'checkpoint {path} does not exist: train one by vseg-train fit') from None
    except Exception as error:
        raise ValueError(f'{path} is not a checkpoint of vseg-train fit, or is damaged '
                         f'({type(error).__name__}: {str(error).splitlines()[0]})') from error
    return student.eval(), recipe
