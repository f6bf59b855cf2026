# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A network with its losses: what Lightning trains."""
import lightning
import torch

from ros_vseg.labels import load_label_set

from .backbones import load_pretrained
from .data import class_frequency, PADDING
from .distill import distillation_terms, Targets, teacher_targets
from .evaluate import evaluate_stream
from .losses import (
    co_training_loss, diversity, diversity_loss, ohem_cross_entropy, video_id_loss)
from .models.layers import resize, resize_labels
from .models.long_term import LongTermContext
from .models.student import Student
from .models.teacher import Teacher
from .recipe import from_dict, to_dict


NETWORKS = {'ssc': Student, 'msc': Teacher}
OF_STUDENTS = ('hide_own', 'wrong_pool')  # options that a teacher lacks


class NonFiniteLoss(ValueError):
    """A loss term became NaN or infinite."""


def build_network(recipe, pretrained=False):
    """Student (short_term: ssc) or teacher (msc) of a recipe, with backbone weights if asked."""
    options = dict(to_dict(recipe)['model'])
    weights, _, _, short_term = (
        options.pop(key) for key in ('weights', 'init', 'frozen_backbone', 'short_term'))
    if short_term not in NETWORKS:
        raise ValueError(f'model.short_term {short_term!r} is unknown: use ssc or msc')
    if short_term == 'msc':
        options = {key: value for key, value in options.items() if key not in OF_STUDENTS}
    network = NETWORKS[short_term](len(load_label_set(recipe.data.label_set).names), **options)
    if pretrained and weights:
        load_pretrained(network.backbone, recipe.model.backbone, weights)
    return network


def class_ids(names, label_set, key):
    """Ids of some classes of a label set; ValueError names the key and the class it lacks."""
    known = list(load_label_set(label_set).names)
    for name in names:
        if name not in known:
            raise ValueError(f'{key} names the class {name!r}, which label set {label_set} lacks: '
                             f'use {", ".join(known)}')
    return [known.index(name) for name in names]


class SegmentationTask(lightning.LightningModule):
    """
    The network with its losses (MGCNet Eq. 11 and 15); every frame of a clip is supervised.

    ``recipe`` is a plain dict, so that checkpoints load with ``weights_only=True``.
    ``num_videos``: video IDs of the training data. ``teacher``: a network to distil from, or None;
    it is no part of the checkpoint.
    """

    def __init__(self, recipe, num_videos=1, pretrained=True, teacher=None):
        super().__init__()
        self.save_hyperparameters({'recipe': recipe})
        self.recipe = from_dict(recipe)
        self.network = build_network(self.recipe, pretrained).to(
            memory_format=torch.channels_last)
        gains = self.recipe.loss.class_gain
        ids = class_ids(gains, self.recipe.data.label_set, 'loss.class_gain')
        self._gains = dict(zip(ids, gains.values()))
        self.register_buffer('class_weights', torch.ones(self.network.num_classes))
        if self.recipe.loss.long_term:
            self.long_term = LongTermContext(self.network.channels, num_videos)
        self._teacher = [] if teacher is None else [teacher.requires_grad_(False)]
        if self.recipe.model.frozen_backbone:
            self.network.backbone.requires_grad_(False)

    def on_train_epoch_start(self):
        self._freeze()

    def on_validation_end(self):
        self._freeze()

    def _freeze(self):
        if self.recipe.model.frozen_backbone:
            self.network.backbone.eval()  # its batch norms keep their statistics

    def on_fit_start(self):
        for teacher in self._teacher:
            teacher.to(self.device, memory_format=torch.channels_last)

    def on_train_start(self):
        balance, weights = self.recipe.loss.class_balance, torch.ones_like(self.class_weights)
        if balance:
            frequency = class_frequency(
                self.trainer.train_dataloader.dataset.sources[0], self.network.num_classes)
            weights = 1 / torch.log(balance + torch.as_tensor(frequency))
        for number, gain in self._gains.items():
            weights[number] *= gain
        self.class_weights.copy_(weights / weights.mean())

    def on_train_batch_start(self, batch, batch_idx):
        # dropout is a function of step and process, so a resumed run repeats an uninterrupted one
        torch.manual_seed(
            self.recipe.seed * 1_000_003 + self.global_step + (self.global_rank << 32))

    def supervised(self, scores, labels):
        """OHEM cross-entropy of scores [B, K, h, w] at the size of labels int64 [B, H, W]."""
        options = self.recipe.loss
        return ohem_cross_entropy(
            resize(scores.float(), labels.shape[1:]), labels, self.class_weights,
            options.ohem_threshold, options.ohem_min_kept)

    def losses(self, output, labels):
        """Named loss terms of a network's output against labels int64 [B, L, H, W]."""
        streams = output.get('streams') or [output['scores']]
        size = streams[0].shape[-2:]
        terms = {'scores': sum(
            self.supervised(scores.flatten(0, 1), labels[:, tau:].flatten(0, 1))
            for tau, scores in enumerate(streams)) / len(streams)}
        # the auxiliary head is coarse: labels as fine as the scores serve it as well, at 1/16
        coarse = resize_labels(labels.flatten(0, 1), size)
        terms['auxiliary'] = self.supervised(output['auxiliary'].flatten(0, 1), coarse)
        if output['projection'] is not None:
            grid = output['features'].shape[-2:]
            inside = resize_labels(labels.flatten(0, 1), grid) != PADDING
            terms['diversity'] = diversity_loss(
                output['projection'], self.recipe.loss.diversity_threshold,
                inside.flatten(1).unflatten(0, labels.shape[:2]))
        if len(streams) > 1 and self.recipe.loss.co_training:
            counted = (coarse != PADDING).unflatten(0, labels.shape[:2])
            terms['co_training'] = co_training_loss(streams, counted)
        return terms

    def _context_terms(self, batch, output):
        """Terms that need more than the clip's labels: video ID, distillation."""
        terms, options = {}, self.recipe.distill
        if self.recipe.loss.long_term:
            distant = batch['distant']
            features = self.network.encode(distant.flatten(0, 1))[1]
            terms['long_term'] = video_id_loss(
                self.long_term(output['features'], features.unflatten(0, distant.shape[:2])),
                batch['video'], self.recipe.loss.video_id)
        if options.teacher:
            if self._teacher:
                targets = teacher_targets(self._teacher[0], batch['images'], batch['places'])
            else:
                targets = Targets(**batch['targets'])
            terms.update(distillation_terms(
                output, targets, batch['labels'].flatten(0, 1) != PADDING, self.class_weights,
                bool(options.structural)))
        return terms

    def _weights(self):
        loss, distill = self.recipe.loss, self.recipe.distill
        return {'scores': 1.0, 'auxiliary': loss.auxiliary, 'diversity': loss.diversity,
                'long_term': loss.long_term, 'co_training': loss.co_training,
                'uncertainty': distill.uncertainty, 'structural': distill.structural}

    def training_step(self, batch, batch_idx):
        output = self.network(batch['images'], batch['places'])
        terms = self.losses(output, batch['labels']) | self._context_terms(batch, output)
        weights = self._weights()
        total = sum(weights[name] * value for name, value in terms.items())
        shown = {'loss': total}
        if output['projection'] is not None:
            shown['div'] = diversity(output['projection']).mean()
        logged = self._means({f'loss/{name}': value for name, value in terms.items()} | shown)
        if not torch.isfinite(logged['loss']):
            self._stop_not_finite(terms, batch['name'])
        self.log_dict({name: logged.pop(name) for name in shown}, prog_bar=True)
        self.log_dict(logged)
        return total

    def _means(self, values):
        """Mean over the processes of named scalars, which are sent together."""
        stacked = torch.stack([value.detach().float() for value in values.values()])
        stacked = self.trainer.strategy.reduce(stacked, reduce_op='mean')
        return dict(zip(values, stacked))

    def _stop_not_finite(self, terms, clips):
        """Raise NonFiniteLoss; all processes come here at once, as they see the same mean."""
        bad = [name for name, value in terms.items() if not torch.isfinite(value)]
        found = [(bad, clips if bad else [])]
        if self.trainer.world_size > 1:
            found *= self.trainer.world_size
            torch.distributed.all_gather_object(found, found[0])
        names, clips = (list(dict.fromkeys(sum(lists, []))) for lists in zip(*found))
        raise NonFiniteLoss(
            f'loss term {" and ".join(names)} is not finite at step {self.global_step}, clips '
            f'{", ".join(clips)}: lower optim.lr or use precision 32-true; the last good '
            'checkpoint is kept')

    def validation_step(self, batch, batch_idx):
        source, value = self.trainer.val_dataloaders.dataset.source, None
        if self.trainer.is_global_zero:  # a stream is no work to share; the others wait here
            confusion, _ = evaluate_stream(self.network, source, self.recipe.data.size)
            value = 100 * confusion.mean_iou()
        value = self.trainer.strategy.broadcast(value)
        self.log('val/mIoU', value, prog_bar=True, batch_size=1, sync_dist=True)

    def configure_optimizers(self):
        options = self.recipe.optim
        backbone = [p for p in self.network.backbone.parameters() if p.requires_grad]
        known = {id(parameter) for parameter in backbone}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        groups = [{'params': rest, 'lr': options.lr}]
        if backbone:
            groups.insert(0, {'params': backbone,
                              'lr': options.lr * options.backbone_lr_scale})
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
