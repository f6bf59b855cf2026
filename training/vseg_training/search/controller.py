# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Controller that writes cells token by token, and learns by PPO which are worth it."""
from typing import NamedTuple

import torch
from torch import nn, Tensor

from ..models.auxiliary import AGGREGATORS, Cell, SEARCHED


TOKENS = 5  # of a cell
EPOCHS, CLIP, ENTROPY, RATE, NORM = 4, 0.2, 0.01, 0.01, 1.0  # of PPO; the thesis gives none


class Walk(NamedTuple):
    """
    Sequences with what the controller thinks of them.

    Attributes:
        tokens: Int64 [B, 5 L].
        log_probability: Of every token after those before it, float [B, 5 L].
        entropy: Of every choice, in nats, float [B, 5 L].
    """

    tokens: Tensor
    log_probability: Tensor
    entropy: Tensor


class Controller(nn.Module):
    """
    LSTM that chooses inputs, adapters and aggregator of one cell after another (thesis, Fig. 6.2).

    Args:
        stages: Of the backbone.
        cells: L; in the thesis as many as stages.
        hidden: Width of the LSTM.

    Examples:
        >>> Controller(4, 2).choices  # inputs, inputs, adapters, adapters, aggregators
        [4, 4, 5, 5, 2, 5, 5, 5, 5, 2]
    """

    def __init__(self, stages: int, cells: int, hidden: int = 64) -> None:
        super().__init__()
        self.choices: list[int] = []
        for number in range(cells):
            inputs = stages + number
            self.choices += [inputs, inputs, len(SEARCHED), len(SEARCHED), len(AGGREGATORS)]
        most = (stages + cells - 1, len(SEARCHED), len(AGGREGATORS))
        self.heads = nn.ModuleList(nn.Linear(hidden, count) for count in most)
        self.seen = nn.ModuleList(nn.Embedding(count, hidden) for count in most)
        self.start = nn.Parameter(torch.zeros(hidden))
        self.lstm = nn.LSTMCell(hidden, hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(self, tokens: Tensor) -> Walk:
        """Find what the controller thinks of sequences int64 [B, 5 L]."""
        return self._walk(len(tokens), tokens, None)

    @torch.no_grad()
    def sample(self, count: int, chance: torch.Generator) -> Walk:
        """Draw some sequences."""
        return self._walk(count, None, chance)

    def _walk(self, count: int, tokens: Tensor | None, chance: torch.Generator | None) -> Walk:
        x = self.start.expand(count, -1)
        state, steps = None, []
        for number, choices in enumerate(self.choices):
            kind = (0, 0, 1, 1, 2)[number % TOKENS]
            state = self.lstm(x, state)
            logs = self.heads[kind](state[0])[:, :choices].log_softmax(1)
            if tokens is None:
                chosen = torch.multinomial(logs.exp(), 1, generator=chance)[:, 0]
            else:
                chosen = tokens[:, number]
            steps.append((chosen, logs.gather(1, chosen[:, None])[:, 0],
                          -(logs.exp() * logs).sum(1)))
            x = self.seen[kind](chosen)
        return Walk(*(torch.stack(parts, 1) for parts in zip(*steps)))


def cells_of(tokens: Tensor) -> list[Cell]:
    """
    Read a sequence int64 [5 L] as cells.

    Examples:
        >>> cells_of(torch.tensor([0, 3, 1, 0, 0]))
        [Cell(first=0, second=3, adapt_first='1x1', adapt_second='skip', aggregate='concat')]
    """
    return [Cell(first, second, SEARCHED[left], SEARCHED[right], AGGREGATORS[aggregate])
            for first, second, left, right, aggregate in tokens.view(-1, TOKENS).tolist()]


def ppo_loss(log_probability: Tensor, before: Tensor, advantage: Tensor, clip: float = CLIP
             ) -> Tensor:
    """
    Clipped surrogate objective, to be made small (PPO; Schulman et al., 2017, Eq. 7).

    L = -mean of min(r A, clip(r, 1 - clip, 1 + clip) A), with r = p / p before the update.

    Args:
        log_probability: Of every token, float [B, n].
        before: Likewise, by the controller that drew them.
        advantage: A of every sequence, float [B].
        clip: How far r may count.

    Returns:
        Scalar.

    Examples:
        >>> before = torch.zeros(2, 1)
        >>> ppo_loss(before + 9, before, torch.tensor([1.0, -1.0]), 0.2)  # -(1.2 - e^9) / 2
        tensor(4050.9419)
    """
    ratio = (log_probability - before).exp()
    gain = advantage[:, None]
    return -torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain).mean()


class Ppo:
    """
    Updates a controller.

    Args:
        controller: To be updated.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.optimizer = torch.optim.Adam(controller.parameters(), RATE)

    def learn(self, walk: Walk, rewards: Tensor) -> None:
        """
        Make sequences more likely the better they are among those drawn together.

        Args:
            walk: Of ``Controller.sample``, two sequences or more.
            rewards: Float [B], any unit.
        """
        advantage = (rewards - rewards.mean()) / rewards.std().clamp(min=1e-6)
        for _ in range(EPOCHS):
            now = self.controller(walk.tokens)
            loss = ppo_loss(now.log_probability, walk.log_probability, advantage)
            loss = loss - ENTROPY * now.entropy.mean()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.controller.parameters(), NORM)
            self.optimizer.step()
