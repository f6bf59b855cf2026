# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Dependencies between frames: PF and MF of efficient temporal consistency (ETC)."""
import torch
from torch import nn, Tensor
from torch.nn import functional as F

from .maps import (
    full_precision, nodes_of, on_one_grid, product, shrink, side_of_patches)
from ..losses.mean import mean_over_processes


HIDDEN = 4  # channels of the ConvLSTM, as in the paper's code


class PairwiseFrames(nn.Module):
    """
    Similarity of places in one frame and the next (PF; Liu et al., ETC, 2020, Eq. 2; thesis 5.2).

    L = mean over nodes i of frame t and j of frame t+1 of (a_ij^S - a_ij^T)^2, with the cosine
    a_ij of their class probabilities. It needs no flow. The paper's weight is 0.1.

    Args:
        max_nodes: Cells are pooled into patches until a frame has no more.

    Examples:
        >>> here = torch.tensor([30.0, 0.0]).view(1, 1, 2, 1, 1)
        >>> stays, changes = (torch.cat([here, later], 1) for later in (here, -here))
        >>> PairwiseFrames()(changes, stays)  # cosines 0 and 1
        tensor(1.)
    """

    def __init__(self, max_nodes: int = 1000) -> None:
        super().__init__()
        self.max_nodes = max_nodes

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None) -> Tensor:
        """
        Compare clips of scores.

        Args:
            student: Float [B, L, K, h, w].
            teacher: Float [B, L, K, h', w'].
            counted: Bool [B, L, H, W]; padding (False) is in no patch.

        Returns:
            Scalar in [0, 1]; 0 for clips of one frame.
        """
        if student.shape[1] < 2:
            return student.sum() * 0
        maps, inside = _by_frames(student, teacher, counted)
        side = side_of_patches(maps[1], 1, self.max_nodes)
        (own, filled), (target, _) = (nodes_of(x.softmax(1), inside, side) for x in maps)
        own, target, filled = (x.unflatten(0, student.shape[:2]) for x in (own, target, filled))
        there = filled[:, :-1, :, None] & filled[:, 1:, None]
        total = ((_across(own) - _across(target)).square() * there).sum()
        return mean_over_processes(total, there.sum().to(total.dtype))


class MultiFrame(nn.Module):
    """
    How the places of a frame resemble each other, over a clip (MF; Liu et al., ETC, Sec. 2.2).

    L = |E^S - E^T|^2 + |H^S - H^T|^2 + collapse * mean(1 - E^T), means over their values: cell
    state E and output H, after the last frame, of one ConvLSTM that reads the self-similarities of
    either network's features as images of N x N. It learns with the student, and could make both
    its states 0: the last part and the clipping of its weights (which keeps its gates from
    saturating) prevent that. The paper, which weighs L by 0.1, states neither range nor part.

    Args:
        max_nodes: Features are pooled into patches until N is no more.
        collapse: Weight of the part that enlarges the teacher's cell state.
        clip: Its weights are kept within +- clip.

    Examples:
        >>> clip = torch.rand(1, 2, 3, 4, 4)
        >>> MultiFrame(collapse=0.0)(clip, clip).item()
        0.0
    """

    def __init__(self, max_nodes: int = 36, collapse: float = 1.0, clip: float = 0.1) -> None:
        super().__init__()
        self.max_nodes, self.collapse, self.clip = max_nodes, collapse, clip
        self.memory = ConvLSTM()

    @torch.no_grad()
    def begin_step(self) -> None:
        """Bring weights that the last step took out of their range back."""
        for weight in self.parameters():
            weight.clamp_(-self.clip, self.clip)

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None) -> Tensor:
        """
        Compare clips of features.

        Args:
            student: Float [B, L, C, h, w].
            teacher: Float [B, L, C', h', w'].
            counted: Bool [B, L, H, W]; padding (False) is in no patch.

        Returns:
            Scalar; 0 for clips of one frame.
        """
        if student.shape[1] < 2:
            unused = sum(x.sum() for x in self.parameters())  # processes wait for their gradients
            return (student.sum() + unused) * 0
        distance, smallness = self.parts(student, teacher, counted)
        return distance + self.collapse * smallness

    def parts(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None
              ) -> tuple[Tensor, Tensor]:
        """Distance of the states, and mean(1 - E^T); arguments as in ``forward``."""
        maps, inside = _by_frames(student, teacher, counted)
        side = side_of_patches(maps[1], 1, self.max_nodes)
        nodes = (nodes_of(x, inside, side)[0] for x in maps)
        own, target = (product(x.transpose(1, 2), x)[:, None].unflatten(0, student.shape[:2])
                       for x in nodes)
        (cell, hidden), (its_cell, its_hidden) = self.memory(own), self.memory(target)
        distance = F.mse_loss(cell, its_cell) + F.mse_loss(hidden, its_hidden)
        return distance, (1 - its_cell).mean()


class ConvLSTM(nn.Module):
    """
    Convolutional LSTM of one layer (Shi et al., 2015; ETC's supplement, Eq. 6).

    The weights from the cell state to the gates are one per channel and not per place, so that
    images may have any size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(1 + HIDDEN, 4 * HIDDEN, 3, padding=1)
        self.from_cell = nn.Parameter(torch.zeros(3, HIDDEN, 1, 1))  # to i, f, o

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """
        Read a sequence.

        Args:
            images: Float [B, L, 1, N, N].

        Returns:
            Cell state E and output H after the last image, float [B, 4, N, N] each.
        """
        images = images.to(self.gates.weight.dtype)  # that of the training
        cell = hidden = images.new_zeros(len(images), HIDDEN, *images.shape[3:])
        to_in, to_forget, to_out = self.from_cell
        with torch.autocast(images.device.type, enabled=False):
            for image in images.unbind(1):
                into, forget, new, out = self.gates(torch.cat([image, hidden], 1)).chunk(4, 1)
                kept = torch.sigmoid(forget + to_forget * cell) * cell
                cell = kept + torch.sigmoid(into + to_in * cell) * torch.tanh(new)
                hidden = torch.sigmoid(out + to_out * cell) * torch.tanh(cell)
        return full_precision(cell), full_precision(hidden)


def _by_frames(student: Tensor, teacher: Tensor, counted: Tensor | None
               ) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Both networks' maps [B*L, C, h', w'] on one grid, and which cells of it count."""
    maps = on_one_grid(student.flatten(0, 1), teacher.flatten(0, 1))
    return maps, shrink(None if counted is None else counted.flatten(0, 1), maps[1])


def _across(nodes: Tensor) -> Tensor:
    """Cosines [B, L - 1, M, M] of the nodes [B, L, C, M] of each frame and the next."""
    return product(nodes[:, :-1].transpose(2, 3), nodes[:, 1:])
