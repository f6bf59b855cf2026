# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes: one YAML per experiment, every key typed and with a default."""
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, Dict, List, Optional, Tuple

from omegaconf import OmegaConf
from omegaconf.errors import KeyValidationError, OmegaConfBaseException, ValidationError

from ros_vseg.labels import load_label_set

from .models.options import KINDS, Model, NetworkOptions, Tasks
from .recipe_limits import check_limits
from .recipe_lists import check_lists
from .yaml_files import load_yaml, overrides_of

VERSION = 2
# what keys meant that a stored recipe of an earlier version lacks
_BEFORE_2: dict[str, Any] = {
    'model': {'attention': 'literal', 'positions': False, 'hide_own': 0.0, 'wrong_pool': 0.0},
    'loss': {'video_id': 'softmax'}, 'optim': {'precision': 'bf16-mixed'}}
RECIPES = Path(__file__).parent / 'recipes'
# says "not on", as YAML reads that word as true: no key can be called so
_TERM = ': write NAME: {weight: 3, of: scores} for a term (of, not on)'


@dataclass
class Source:
    """
    One source of clips.

    ``kind``: camvid, cityscapes, cityscapes_coarse, voc, ade20k, nyuv2, folder or street.
    ``drives``: names of the drives to take, all by default. ``stills``: share of the clips that
    are made of their last frame alone, by a window that moves over it. ``step``: of a street,
    frames of its 15 Hz drive from one frame of a clip to the next. ``label_map``: YAML from ids
    on disk to class names, for a folder; ``unlabelled``: clips may end at frames without labels
    too, for distillation; ``ignore_labels``: all its frames are taken as unlabelled. ``focal``: of
    the camera of a folder, in pixels of its images, whose depth lies in ``depth/`` beside
    ``labels/``, as 16-bit PNGs of millimetres, 0 where there is none.
    """

    kind: str = 'camvid'
    root: Optional[str] = None
    split: str = 'train'
    drives: List[str] = field(default_factory=list)
    seeds: Tuple[int, int] = (0, 200)
    step: int = 1
    stills: float = 0.0
    weight: float = 1.0
    label_map: Optional[str] = None
    unlabelled: bool = False
    ignore_labels: bool = False
    focal: Optional[float] = None


@dataclass
class Data:
    """
    Sources, augmentation (MGCNet Sec. IV-B) and the frames and clip lengths of a step.

    ``degrade``: how often the last frame of a clip of two frames or more is degraded
    (``data.degrade``); ``degrade_other``: how often any other frame is. ``focus``: names of
    classes; half of the clips take the one of three crops that shows most of them. ``rates``:
    least and highest rate, in Hz, of the cameras that clips are like; the bundle says so.
    """

    label_set: str = 'camvid'
    train: List[Source] = field(default_factory=list)
    val: Optional[Source] = None
    crop: Tuple[int, int] = (320, 320)
    scale: Tuple[float, float] = (0.5, 2.0)
    brightness: float = 10.0
    contrast: float = 0.0
    saturation: float = 0.0
    degrade: float = 0.0
    degrade_other: float = 0.0
    focus: List[str] = field(default_factory=list)
    rates: Optional[Tuple[float, float]] = None
    frames_per_step: int = 8
    clip_lengths: List[int] = field(default_factory=lambda: [1, 2, 4])
    workers: int = 1
    size: Tuple[int, int] = (360, 480)
    license: str = ''  # noqa: A003


@dataclass
class Loss:
    """
    Weights of Eq. 11, and the options of its terms.

    segmentation: of the scores; auxiliary: head; diversity: alpha_1, and theta_div; long_term:
    alpha_2; co_training: alpha_3, for msc alone; OHEM threshold and floor.
    ``video_id``: bce as the paper has it, or softmax.
    ``class_gain``: factors of the class weights, by class name, on top of ``class_balance``.
    ``class_balance`` c weights a class of frequency p by w = 1 / ln(c + p) (ENet); 0: no weights.
    A weighted loss shifts the scores by ln w; ``logit_adjustment`` is the share that is taken
    back from the trained student.
    """

    segmentation: float = 1.0
    auxiliary: float = 0.4
    diversity: float = 1.0
    diversity_threshold: float = 0.25
    long_term: float = 0.4
    video_id: str = 'bce'
    co_training: float = 0.5
    ohem_threshold: float = 0.7
    ohem_min_kept: float = 0.1
    class_balance: float = 0.0
    class_gain: Dict[str, float] = field(default_factory=dict)
    logit_adjustment: float = 0.0


@dataclass
class Distillation:
    """
    Teacher and weights of Eq. 15: uncertainty (beta_1, L_uct) and structural (beta_2, L_st).

    ``teacher``: a checkpoint of ``vseg-train fit``, or a folder of ``vseg-train soft-labels``.
    """

    teacher: Optional[str] = None
    uncertainty: float = 0.5
    structural: float = 0.4


@dataclass
class Optimisation:
    """
    Optimiser with the poly schedule (1 - step/max_steps)^power after a linear warm-up.

    ``precision``: as Lightning names it, or auto: bf16-mixed on a GPU and 32-true on a CPU, where
    bf16 is slower.
    """

    optimizer: str = 'adamw'
    lr: float = 1e-3
    weight_decay: float = 0.01
    backbone_lr_scale: float = 1.0
    warmup_steps: int = 100
    max_steps: int = 4000
    power: float = 0.9
    ema: float = 0.998
    precision: str = 'auto'
    validate_every: int = 500
    checkpoint_every: int = 100


@dataclass
class Recipe:
    """
    A whole experiment.

    ``terms``: further terms of the loss by name (``terms.METHODS``), each with its weight, ``of``
    (scores, features or depth) and options: a sum of methods.
    ``tasks``: what the network says beside classes, of data that have it.
    ``version``: of the meaning of what a recipe leaves out. What is stored in a checkpoint keeps
    its own: see ``from_dict``.
    """

    version: int = VERSION
    name: str = 'experiment'
    seed: int = 0
    model: NetworkOptions = field(default_factory=Model)
    tasks: Tasks = field(default_factory=Tasks)
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    distill: Distillation = field(default_factory=Distillation)
    terms: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    optim: Optimisation = field(default_factory=Optimisation)


def chosen_by(recipe: Recipe) -> str:
    """Name of the figure of val by which best.ckpt is chosen: mIoU, or delta1 of depth alone."""
    return 'delta1' if recipe.tasks.depth and not recipe.loss.segmentation else 'mIoU'


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """
    Read a recipe; ``${oc.env:NAME}`` in it stands for an environment variable.

    Args:
        path: YAML file, or the name of a shipped recipe.
        overrides: ``key.sub=value`` each.

    Raises:
        ValueError: The file does not exist or is not YAML, or it has an unknown key, a value of
            the wrong type, a number outside its limits or an unset variable; the message names it.
    """
    file = Path(path)
    if not file.is_file() and (RECIPES / f'{path}.yaml').exists():
        file = RECIPES / f'{path}.yaml'
    if not file.is_file():
        names = ', '.join(sorted(p.stem for p in RECIPES.glob('*.yaml')))
        raise ValueError(f'recipe {path} does not exist: give a YAML file or one of {names}')
    where = f'recipe {path}'
    tree, changes = load_yaml(file, where), overrides_of(overrides, where)
    try:
        given = OmegaConf.merge(tree, changes)
        schema = _schema(given, where)
        defaults = Recipe(model=KINDS[schema.model.kind]())
        check_lists(cast(Any, OmegaConf.to_container(given)), defaults, f'{where}: ')
        merged = OmegaConf.merge(schema, given)
        recipe = cast(Recipe, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key = str(error.full_key or '')
        place = f', key {key}' if key else ''
        wrong = isinstance(error, (KeyValidationError, ValidationError))
        fix = _TERM if wrong and key.startswith('terms') else ''
        raise ValueError(f'{where}{place}: {str(error).splitlines()[0]}{fix}') from error
    except TypeError as error:  # an override that takes a list for a mapping, such as a.0.b=1
        given_by = ' with '.join([where, *([' '.join(overrides)] if overrides else [])])
        raise ValueError(f'{given_by}: {error}; a list is given as a whole, KEY=[...]') from error
    check_limits(recipe)
    return recipe


def _schema(tree: Any, where: str) -> Any:
    """Recipe of defaults whose ``model`` has the options of the kind that a tree names."""
    schema = OmegaConf.structured(Recipe)
    kind = OmegaConf.select(OmegaConf.create(tree), 'model.kind', default='mgcnet')
    if kind not in KINDS:
        raise ValueError(f'{where}: model.kind {kind!r} is unknown: use {", ".join(KINDS)}')
    schema.model = OmegaConf.structured(KINDS[kind])
    return schema


def from_dict(tree: Any) -> Recipe:
    """
    Recipe from the plain dict that a checkpoint holds.

    A key that it lacks means what it meant when the checkpoint was written.

    Raises:
        ValueError: The recipe is of a later version.
    """
    version = tree.get('version', 1)
    if version > VERSION:
        raise ValueError(f'the recipe has version {version}, but this vseg_training reads up to '
                         f'{VERSION}: update it')
    before = OmegaConf.create(_BEFORE_2 if version < 2 else {})
    schema = _schema(tree, 'the recipe')
    merged = OmegaConf.merge(schema, before, OmegaConf.create(tree))
    recipe = cast(Recipe, OmegaConf.to_object(merged))
    if version < 2:
        for source in (*recipe.data.train, recipe.data.val):
            if source is not None:
                source.step = 3  # of a street's clips, before it was an option
    recipe.version = VERSION
    return recipe


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain dict, as stored in a checkpoint."""
    tree = OmegaConf.to_container(OmegaConf.structured(recipe), resolve=True)
    return cast(dict[str, Any], tree)


def class_ids(names: Sequence[str], label_set: str, key: str) -> list[int]:
    """
    Look up the ids of some classes of a label set.

    Args:
        names: Of the classes.
        label_set: Name or file of the label set.
        key: Of the recipe that lists the names; errors name it.

    Raises:
        ValueError: The label set lacks a class; the message names it.
    """
    known = list(load_label_set(label_set).names)
    for name in names:
        if name not in known:
            raise ValueError(f'{key} names the class {name!r}, which label set {label_set} lacks: '
                             f'use {", ".join(known)}')
    return [known.index(name) for name in names]
