# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Supervised training of the student: read it top to bottom."""
import ctypes
import logging
from pathlib import Path
import sys

import lightning
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
import torch

from ros_vseg.labels import load_label_set

from .backbones import load_pretrained
from .data import Augmentation, build_loader, build_source, class_frequency, ClipDataset
from .evaluate import evaluate_stream
from .losses import diversity, diversity_loss, ohem_cross_entropy
from .models.layers import resize
from .models.student import Student
from .recipe import from_dict, to_dict


log = logging.getLogger(__name__)


def build_student(recipe, pretrained=False):
    """Student of a recipe, with backbone weights if asked."""
    options = dict(to_dict(recipe)['model'])
    weights = options.pop('weights')
    student = Student(len(load_label_set(recipe.data.label_set).names), **options)
    if pretrained and weights:
        load_pretrained(student.backbone, recipe.model.backbone, weights)
    return student


class SegmentationTask(lightning.LightningModule):
    """
    The student with its losses; every frame of a clip is supervised.

    ``recipe`` is a plain dict, so that checkpoints load with ``weights_only=True``.
    """

    def __init__(self, recipe, pretrained=True):
        super().__init__()
        self.save_hyperparameters({'recipe': recipe})
        self.recipe = from_dict(recipe)
        self.student = build_student(self.recipe, pretrained).to(
            memory_format=torch.channels_last)
        self.register_buffer('class_weights', torch.ones(self.student.num_classes))

    def on_train_start(self):
        balance = self.recipe.loss.class_balance
        if balance:
            frequency = class_frequency(
                self.trainer.train_dataloader.dataset.sources[0], self.student.num_classes)
            weights = 1 / torch.log(balance + torch.as_tensor(frequency))
            self.class_weights.copy_(weights / weights.mean())

    def on_train_batch_start(self, batch, batch_idx):
        # dropout is a function of the step, so a resumed run repeats an uninterrupted one
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.global_step)

    def losses(self, output, labels):
        """Named loss terms of ``Student.forward``'s output against labels int64 [B, L, H, W]."""
        options, labels = self.recipe.loss, labels.flatten(0, 1)
        terms = {}
        for name in ('scores', 'auxiliary'):
            scores = resize(output[name].flatten(0, 1).float(), labels.shape[1:])
            terms[name] = ohem_cross_entropy(
                scores, labels, self.class_weights, options.ohem_threshold,
                options.ohem_min_kept)
        terms['diversity'] = diversity_loss(output['projection'], options.diversity_threshold)
        return terms

    def training_step(self, batch, batch_idx):
        images, labels = batch
        output = self.student(images)
        terms = self.losses(output, labels)
        options = self.recipe.loss
        total = (terms['scores'] + options.auxiliary * terms['auxiliary']
                 + options.diversity * terms['diversity'])
        self.log_dict({f'loss/{name}': value for name, value in terms.items()})
        self.log('div', diversity(output['projection'].detach()).mean(), prog_bar=True)
        self.log('loss', total, prog_bar=True)
        return total

    def validation_step(self, batch, batch_idx):
        source = self.trainer.val_dataloaders.dataset.source
        confusion, _ = evaluate_stream(self.student, source)
        self.log('val/mIoU', 100 * confusion.mean_iou(), prog_bar=True, batch_size=1)

    def configure_optimizers(self):
        options = self.recipe.optim
        backbone = list(self.student.backbone.parameters())
        known = {id(parameter) for parameter in backbone}
        rest = [p for p in self.student.parameters() if id(p) not in known]
        groups = [{'params': backbone, 'lr': options.lr * options.backbone_lr_scale},
                  {'params': rest, 'lr': options.lr}]
        if options.optimizer == 'sgd':
            optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=options.weight_decay)
        elif options.optimizer == 'adamw':
            optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
        else:
            raise ValueError(f'optimizer {options.optimizer!r} is unknown: use adamw or sgd')

        def poly(step):
            warmup = min(1.0, (step + 1) / max(1, options.warmup_steps))
            return warmup * max(0.0, 1 - step / options.max_steps) ** options.power

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, poly)
        return {'optimizer': optimizer,
                'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}


class _WholeSplit(torch.utils.data.Dataset):
    """One item that stands for the whole validation split, which is streamed in order."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return index


def build_data(recipe, cache, start_step):
    """Training loader from a step on, and validation loader or None."""
    data, length = recipe.data, recipe.model.context_frames + 1
    num_classes = len(load_label_set(data.label_set).names)
    if not data.train:
        raise ValueError('the recipe has no data.train: list at least one source')
    sources = [build_source(s, num_classes, length, cache, data.size) for s in data.train]
    dataset = ClipDataset(
        sources, [s.weight for s in data.train], data.clip_lengths, data.frames_per_step,
        Augmentation(data.crop, data.scale, data.brightness, data.contrast, data.saturation),
        recipe.seed, recipe.optim.max_steps)
    val = None
    if data.val is not None:
        split = _WholeSplit(build_source(data.val, num_classes, length, cache, data.size))
        val = torch.utils.data.DataLoader(split)
    return build_loader(dataset, start_step, data.workers), val


def keep_freed_memory():
    """
    Let glibc keep freed blocks: on a CPU a fifth of a step went into page faults (measured).

    Sets M_MMAP_THRESHOLD and M_TRIM_THRESHOLD; does nothing where the C library is not glibc.
    """
    if sys.platform == 'linux' and hasattr(ctypes.CDLL(None), 'mallopt'):
        for option in (-3, -1):
            ctypes.CDLL(None).mallopt(option, 2 ** 31 - 1)


def fit(recipe, output):
    """
    Train a recipe into a folder; run it again to resume after a kill.

    Writes last.ckpt, best.ckpt (highest val mIoU) and the metrics as CSV. Returns the path of
    the checkpoint to use.
    """
    keep_freed_memory()
    lightning.seed_everything(recipe.seed, verbose=False)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    last = output / 'last.ckpt'
    start = 0
    if last.exists():
        start = torch.load(last, map_location='cpu', weights_only=True)['global_step']
        log.info('resuming %s at step %d', last, start)
    loader, val = build_data(recipe, output.parent / 'cache', start)
    options = recipe.optim
    callbacks = [
        TQDMProgressBar(), EMAWeightAveraging(decay=options.ema),
        ModelCheckpoint(output, 'last', every_n_train_steps=options.checkpoint_every,
                        enable_version_counter=False, save_on_train_epoch_end=False)]
    if val is not None:
        callbacks.append(ModelCheckpoint(
            output, 'best', monitor='val/mIoU', mode='max', enable_version_counter=False))
    trainer = lightning.Trainer(
        max_steps=options.max_steps, max_epochs=-1, precision=options.precision,
        callbacks=callbacks, logger=CSVLogger(output, 'metrics', version=''),
        val_check_interval=options.validate_every if val is not None else None,
        check_val_every_n_epoch=None, num_sanity_val_steps=0, log_every_n_steps=20,
        limit_val_batches=1 if val is not None else 0, use_distributed_sampler=False)
    trainer.fit(SegmentationTask(to_dict(recipe), pretrained=not last.exists()), loader, val,
                ckpt_path=last if last.exists() else None, weights_only=True)
    best = output / 'best.ckpt'
    return best if best.exists() else last
