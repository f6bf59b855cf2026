# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How far a run is, how fast it was, and what it waited for."""
import json
import logging
from pathlib import Path
import resource
import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.profilers import Profiler
import torch


log = logging.getLogger(__name__)
WARM_UP = 5  # first steps that the figures leave out


class ProgressBar(TQDMProgressBar):
    """Progress bar over all steps of the run, also when it was resumed."""

    def on_train_start(self, trainer: lightning.Trainer, *modules: Any) -> None:
        """Set the total: a resumed run begins no epoch, where Lightning would set it."""
        super().on_train_start(trainer, *modules)
        self.train_progress_bar.total = trainer.max_steps
        self.train_progress_bar.initial = trainer.global_step


class WaitTimer(Profiler):
    """
    Profiler that times one thing alone: how long the training loop waits for batches.

    Attributes:
        seconds: Waited so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = self._begin = 0.0

    def start(self, action_name: str) -> None:
        """Begin to time an action, if it is the wait for a batch."""
        if action_name.endswith('train_dataloader_next'):
            self._begin = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """End to time an action."""
        if action_name.endswith('train_dataloader_next'):
            self.seconds += time.perf_counter() - self._begin

    def describe(self) -> None:
        """Print nothing: the report is ``SpeedReport``'s."""


class SpeedReport(Callback):
    """
    Speed of the steps after ``WARM_UP``, without validation and the writing of checkpoints.

    It is logged as one line at the end.

    Args:
        waits: The trainer's profiler.
        file: To keep the seconds of a step in as JSON, if any.

    Attributes:
        steps: That were measured.
        images: Of these steps, of all processes.
    """

    def __init__(self, waits: WaitTimer, file: Path | None = None) -> None:
        self.waits, self.file = waits, file
        self.steps, self.images, self._busy = -WARM_UP, 0, 0.0

    @property
    def seconds(self) -> float:
        """Seconds of the measured steps, waits included."""
        return self._busy + self.waits.seconds

    def on_train_start(self, *_: Any) -> None:
        """Forget what earlier runs of this process took of a GPU's memory."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_start(self, *_: Any) -> None:
        """Begin to time a step."""
        self._begin = time.perf_counter()

    def on_train_batch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule,
                           outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count a step, once the warm-up is over."""
        self.steps += 1
        if self.steps > 0:
            self._busy += time.perf_counter() - self._begin
            self.images += batch['images'].shape[:2].numel() * trainer.world_size
        else:
            self.waits.seconds = 0.0

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Log the report, from the first process."""
        if trainer.is_global_zero and self.steps > 0:
            log.info('%.1f images/s over %d steps, %.1f %% of the time waiting for data, peak '
                     'memory %.2f GB per process', self.images / self.seconds, self.steps,
                     100 * self.waits.seconds / self.seconds, peak_memory() / 1e9)
            if self.file:
                found = {'seconds_per_step': self.seconds / self.steps}
                if _on_gpu():  # elsewhere it is the whole process', with its runs before this one
                    found['memory_GB'] = peak_memory() / 1e9
                self.file.write_text(json.dumps(found))


def _on_gpu() -> bool:
    return torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0


def peak_memory() -> int:
    """Most bytes that this process ever held: on its GPU if it used one, else in main memory."""
    if _on_gpu():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == 'darwin' else 1024)
