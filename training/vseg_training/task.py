# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A network with its losses: what Lightning trains."""
from collections.abc import Sequence
from typing import Any, cast

import lightning
import torch
from torch import Tensor

from ros_vseg.labels import load_label_set

from .data import class_frequency, PADDING
from .data.clips import refuse_padding_as_class
from .distill import (
    distillation_terms, maps_of, monte_carlo, stored_maps, Targets, teacher_maps,
    teacher_targets)
from .evaluate import evaluate_stream
from .geometry import geometry_metrics
from .losses import (
    co_training_loss, diversity, diversity_loss, KendallWeights, normals_loss,
    ohem_cross_entropy, video_id_loss, weighted_cross_entropy)
from .models.kinds import build, Network, refuse_without_prototypes
from .models.layers import resize, resize_labels
from .models.long_term import LongTermContext
from .models.network import Output
from .models.tasks import bins_of
from .not_finite import stop_not_finite
from .optimiser import build_optimiser
from .recipe import class_ids, from_dict, Recipe
from .terms import Maps, needs, Task, Terms, Widths
from .terms.methods import refuse_frozen


Batch = dict[str, Any]  # of ClipDataset's items


def build_network(recipe: Recipe, pretrained: bool = False) -> Network:
    """
    Build the network of a recipe.

    Args:
        recipe: Of which ``model``, ``tasks`` and the label set count.
        pretrained: Whether to load the backbone's weights (``model.weights``).

    Raises:
        ValueError: ``model`` or ``tasks`` has an unknown value, or values that do not fit
            together, or the label set has too many classes.
    """
    label_set = load_label_set(recipe.data.label_set)
    refuse_padding_as_class(label_set)
    return build(recipe.model, len(label_set.names), pretrained, recipe.tasks)


class SegmentationTask(lightning.LightningModule):
    """
    The network with its losses (MGCNet Eq. 11 and 15); every frame of a clip is supervised.

    Args:
        recipe: As a plain dict, so that checkpoints load with ``weights_only=True``.
        num_videos: Video IDs of the training data.
        pretrained: As in ``build_network``.
        teacher: A network to distil from, or None; it is not part of the checkpoint.
    """

    class_weights: Tensor

    def __init__(self, recipe: dict[str, Any], num_videos: int = 1, pretrained: bool = True,
                 teacher: Network | None = None) -> None:
        super().__init__()
        self.save_hyperparameters({'recipe': recipe})
        self.recipe = from_dict(recipe)
        self.network = build_network(self.recipe, pretrained)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        gains = self.recipe.loss.class_gain
        ids = class_ids(list(gains), self.recipe.data.label_set, 'loss.class_gain')
        self._gains = dict(zip(ids, gains.values()))
        self.register_buffer('class_weights', torch.ones(self.network.num_classes))
        tasks = self.recipe.tasks
        self.kendall = KendallWeights([
            'scores', *(name for name in ('depth', 'normals') if getattr(tasks, name))
        ]) if tasks.weighting == 'kendall' else None
        if self.recipe.loss.long_term:
            self.long_term = LongTermContext(self.network.channels, num_videos)
        # in a list, which hides its weights from Lightning and from the checkpoint
        self._teacher = [] if teacher is None else [teacher.requires_grad_(False)]
        if self.recipe.distill.teacher and self.recipe.distill.structural:
            refuse_without_prototypes([self.network, *self._teacher])
        crop = self.recipe.data.crop
        self.terms = Terms(self.recipe.terms, _widths(self.network, crop),
                           None if teacher is None else _widths(teacher, crop),
                           stored=self.recipe.distill.teacher is not None)
        if self.recipe.model.frozen_backbone:
            refuse_frozen(self.recipe.terms)
            self.network.backbone.requires_grad_(False)

    def on_fit_start(self) -> None:
        """Move teacher and opponents, which Lightning does not know, to the device."""
        for teacher in self._teacher:
            teacher.to(  # type: ignore[call-overload]
                self.device, memory_format=torch.channels_last)
        for opponent in self.terms.opponents.values():
            opponent.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the opponents, which are in no module."""
        opponents = self.terms.opponents
        if opponents:
            checkpoint['opponents'] = {name: each.state_dict() for name, each in opponents.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the opponents back."""
        for name, state in checkpoint.get('opponents', {}).items():
            self.terms.opponents[name].load_state_dict(state)

    def on_train_start(self) -> None:
        """Set the class weights (``loss.class_balance`` and ``loss.class_gain``), of mean 1."""
        balance, weights = self.recipe.loss.class_balance, torch.ones_like(self.class_weights)
        if balance:
            loader: Any = self.trainer.train_dataloader
            frequency = class_frequency(loader.dataset.sources[0], self.network.num_classes)
            weights = 1 / torch.log(balance + torch.as_tensor(frequency))
        for number, gain in self._gains.items():
            weights[number] *= gain
        self.class_weights.copy_(weights / weights.mean())

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make chance a function of step and process: a resumed run repeats the whole one."""
        torch.manual_seed(
            self.recipe.seed * 1_000_003 + self.global_step + (self.global_rank << 32))
        self.terms.begin_step()
        if self.recipe.model.frozen_backbone:
            # its batch norms keep their statistics; here, as a resumed run begins no epoch
            self.network.backbone.eval()

    def supervised(self, scores: Tensor, labels: Tensor) -> Tensor:
        """OHEM cross-entropy of scores [B, K, h, w] at the size of labels int64 [B, H, W]."""
        options = self.recipe.loss
        return ohem_cross_entropy(
            resize(scores.float(), labels.shape[1:]), labels, self.class_weights,
            options.ohem_threshold, options.ohem_min_kept)

    def losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """
        Loss terms that need nothing but a network's output and the labels (Eq. 11).

        Args:
            output: Of the network's ``forward``.
            labels: Int64 [B, L, H, W].

        Returns:
            Scalars by name, without their weights.
        """
        streams = output.get('streams') or [output['scores']]
        size = streams[0].shape[-2:]
        # auxiliary heads are coarse: labels as fine as the scores serve them as well, at 1/16
        coarse = resize_labels(labels.flatten(0, 1), size)
        terms = {'scores': self._mean_over_streams(streams, labels)}
        if 'auxiliary' in output:
            heads = [self.supervised(each.flatten(0, 1), coarse) for each in output['auxiliary']]
            terms['auxiliary'] = torch.stack(heads).mean()
        projection = output['projection']
        if projection is not None:
            terms['diversity'] = diversity_loss(
                projection, self.recipe.loss.diversity_threshold)
        if len(streams) > 1 and self.recipe.loss.co_training:
            counted = (coarse != PADDING).unflatten(0, labels.shape[:2])
            terms['co_training'] = co_training_loss(streams, counted)
        return terms

    def _mean_over_streams(self, streams: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Supervised loss of every stream tau, which has the frames from tau on."""
        total = torch.zeros((), device=labels.device)
        for tau, scores in enumerate(streams):
            total = total + self.supervised(scores.flatten(0, 1), labels[:, tau:].flatten(0, 1))
        return total / len(streams)

    def _context_terms(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Terms that need more than the clip's labels: video ID, distillation."""
        terms, counted = {}, batch['labels'] != PADDING
        if self.recipe.loss.long_term:
            distant = batch['distant']
            features = self.network.encode(distant.flatten(0, 1))[1]
            scores = self.long_term(
                output['features'], features.unflatten(0, distant.shape[:2]), counted,
                batch['distant_counted'])
            terms['long_term'] = video_id_loss(
                scores, batch['video'], self.recipe.loss.video_id)
        distill = self.recipe.distill
        if distill.teacher and (distill.uncertainty or distill.structural):
            terms |= distillation_terms(
                output, self._targets(batch), counted.flatten(0, 1), self.class_weights,
                bool(distill.structural))
        if self.terms.weights:
            given = maps_of(output), self._maps(batch), batch, counted
            self.terms.train_opponents(*given)
            terms |= self.terms(*given, self._own_tasks(batch))
        return terms

    def _own_tasks(self, batch: Batch) -> dict[str, Task]:
        """What the network learns, for terms on the stages of its backbone."""
        tasks, depth = {'scores': Task(self.supervised, batch['labels'])}, self.recipe.tasks.depth
        if depth:
            def loss(maps: Tensor, bins: Tensor) -> Tensor:
                """Loss of depth at the size of the bins."""
                maps = resize(maps.float(), bins.shape[1:])
                return weighted_cross_entropy(maps, bins, depth.sharpness)

            tasks['depth'] = Task(loss, bins_of(batch['depth'], depth))
        return tasks

    def _geometry_terms(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Terms of depth and normals, where the network has these tasks."""
        terms, task = {}, self.recipe.tasks.depth
        if task:
            bins = bins_of(batch['depth'].flatten(0, 1), task)
            terms['depth'] = weighted_cross_entropy(
                output['depth'].flatten(0, 1), bins, task.sharpness)
        if self.recipe.tasks.normals:
            terms['normals'] = normals_loss(
                output['normals'].flatten(0, 1), batch['normals'].flatten(0, 1))
        return terms

    def _maps(self, batch: Batch) -> Maps | None:
        """Maps of a batch, from the teacher or its soft labels; None where no term asks."""
        if not any(needs(self.recipe.terms, need) for need in ('teacher', 'probabilities')):
            return None
        if self._teacher:
            clip = self._teacher[0], *_seen(batch)
            maps, passes = teacher_maps(*clip), self.terms.passes
            return maps._replace(monte_carlo=monte_carlo(*clip, **passes)) if passes else maps
        if self.recipe.distill.teacher:
            return stored_maps(batch['targets']['probabilities'])
        return None

    def _targets(self, batch: Batch) -> Targets:
        """Targets of a batch, from the teacher at work or from its soft labels."""
        if self._teacher:
            return teacher_targets(self._teacher[0], *_seen(batch))
        return Targets(**batch['targets'])

    def _weights(self) -> dict[str, float]:
        loss, distill, tasks = self.recipe.loss, self.recipe.distill, self.recipe.tasks
        of_tasks = {name: task.weight for name, task in (
            ('depth', tasks.depth), ('normals', tasks.normals)) if task}
        auxiliary = loss.auxiliary if loss.segmentation else 0.0  # its labels are classes too
        return {'scores': loss.segmentation, **of_tasks, 'auxiliary': auxiliary,
                'diversity': loss.diversity, 'long_term': loss.long_term,
                'co_training': loss.co_training, 'uncertainty': distill.uncertainty,
                'structural': distill.structural, **self.terms.weights}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """
        Weighted sum of all loss terms of a batch; each is logged.

        Raises:
            NonFiniteLoss: A term is NaN or infinite; the message names it and the clips.
        """
        output = self.network(*_seen(batch))
        terms = (self.losses(output, batch['labels']) | self._geometry_terms(batch, output)
                 | self._context_terms(batch, output))
        weights = self._weights()
        weighted = {name: weights[name] * value for name, value in terms.items()}
        total = torch.zeros((), device=self.device)
        if self.kendall:
            total = self.kendall(weighted)
        for name, value in weighted.items():
            if not (self.kendall and name in self.kendall.log_variances):
                total = total + value
        shown = {'loss': total}
        if output['projection'] is not None:
            shown['div'] = diversity(output['projection']).mean()
        named = {f'loss/{name}': value for name, value in terms.items()}
        logged = self._means(named | shown)
        if not torch.isfinite(logged['loss']):
            stop_not_finite(terms, batch['name'], self.global_step, self.trainer.world_size)
        self.log_dict({name: logged.pop(name) for name in shown}, prog_bar=True)
        self.log_dict(logged)
        return total

    def _means(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean over the processes of named scalars, which are sent together."""
        stacked = torch.stack([value.detach().float() for value in values.values()])
        means = cast(Tensor, self.trainer.strategy.reduce(stacked, reduce_op='mean'))
        return dict(zip(values, means))

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Stream the whole validation split; log its mIoU in percent, and errors of geometry."""
        loader: Any = self.trainer.val_dataloaders
        found = None
        if self.trainer.is_global_zero:  # a stream cannot be shared; the others wait here
            size = self.recipe.data.size
            geometry = geometry_metrics(self.recipe.tasks, size[0])
            confusion, _ = evaluate_stream(
                self.network, loader.dataset.source, size, geometry=geometry)
            found = {'mIoU': 100 * confusion.mean_iou(),
                     **(geometry.summary() if geometry else {})}
        found = cast(dict[str, float], self.trainer.strategy.broadcast(found))
        self.log_dict({f'val/{name}': value for name, value in found.items()}, prog_bar=True,
                      batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Build the optimiser of ``optim`` and its schedule over steps."""
        return build_optimiser(self, self.network.backbone, self.recipe.optim)


def _seen(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """What networks see of a batch: its clips, their places, and what of them is not padding."""
    return batch['images'], batch['places'], batch['labels'] != PADDING


def _widths(network: Network, crop: Sequence[int]) -> Widths:
    height, width = (-(-side // network.output_stride) for side in crop)
    has_auxiliary = getattr(network, 'auxiliary', None) is not None
    tasks = getattr(network, 'tasks', None)
    return Widths(network.num_classes, network.channels, has_auxiliary, (height, width),
                  stages=network.backbone.channels,
                  depth=tasks.depth.bins if tasks and tasks.depth else 0)
