"""Strings that are answered by asking: linear attention, induction, memories."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.held_out.sequences import sources
from benchmarks.detection.held_out.sequences.attention import Attention, Block
from benchmarks.detection.held_out.sequences.parts import fit, using

__all__ = ["CASES"]


class Linear(nn.Module):
    """Attention without softmax: features of keys and queries, and running sums of values.

    Args:
        width: Of inputs and outputs.
        features: Of keys and queries.
        least: Added to what is divided by.
    """

    def __init__(self, width: int, features: int, least: float) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, features), nn.Linear(width, features)
        self.value, self.least = nn.Linear(width, width), least

    def forward(self, inputs: Tensor) -> Tensor:
        """Mix each place with its past."""
        query, key = torch.relu(self.query(inputs)), torch.relu(self.key(inputs))
        sums = torch.einsum("btf,btd->btfd", key, self.value(inputs)).cumsum(dim=1)
        total = torch.einsum("btf,btf->bt", query, key.cumsum(dim=1)) + self.least
        mixed: Tensor = torch.einsum("btf,btfd->btd", query, sums) / total.unsqueeze(2)
        return mixed


class Recaller(nn.Module):
    """Says which value went with a key, by two blocks.

    Args:
        first: Mixes places in the first block, as does `second` in the second.
        second: See there.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(18, 32)
        self.blocks = nn.Sequential(Block(first, 32), Block(second, 32), nn.LayerNorm(32))
        self.out = nn.Linear(32, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of the value."""
        logits: Tensor = self.out(self.blocks(self.embed(inputs))[:, -1])
        return logits


def shifted(inputs: Tensor) -> Tensor:
    """Return the place before, for each place."""
    return nn.functional.pad(inputs, (0, 0, 1, 0))[:, :-1]


class Shift(nn.Module):
    """Gives each place what the place before it holds."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Shift by one."""
        return shifted(inputs)


def linear(least: float, features: int = 16) -> Recaller:
    """Return a shift and linear attention."""
    return Recaller(Shift(), Linear(32, features, least))


def induction() -> Recaller:
    """Return two blocks of causal attention that know places by rotation."""
    return Recaller(Attention(32, 2, "rotary"), Attention(32, 2, "rotary"))


class Memory(nn.Module):
    """Pairs kept in a memory, asked three times.

    Args:
        silence: Subtracted from what the hidden units are given.
    """

    def __init__(self, silence: float = 0.0) -> None:
        super().__init__()
        self.ask, self.answer = nn.Embedding(18, 24), nn.Embedding(18, 24)
        self.turn = nn.Linear(24, 24)
        self.net = nn.Linear(24, 64)
        self.out = nn.Linear(64, 8)
        nn.init.constant_(self.net.bias, -silence)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of the value."""
        keys, values = self.ask(inputs[:, 0:-1:2]), self.answer(inputs[:, 1::2])
        state = self.ask(inputs[:, -1])
        for _ in range(3):
            weights = torch.einsum("bd,bkd->bk", state, keys).softmax(dim=1)
            state = self.turn(state) + torch.einsum("bk,bkd->bd", weights, values)
        logits: Tensor = self.out(torch.relu(self.net(state)))
        return logits


Adam = torch.optim.Adam
four_pairs = partial(sources.recall, 4)
eight_pairs = partial(sources.recall, 8)

CASES: tuple[Case, ...] = (
    Case(
        name="induction-plateau",
        family="rotary-recall",
        build=fit(induction, using(Adam, lr=3e-3), four_pairs, batch_size=64),
        steps=350,
        level=0.8,
        why="the loss stays level until two layers have found out how to work together",
    ),
    Case(
        name="linear-attention-recalls",
        family="linear-attention",
        build=fit(partial(linear, 1e-3), using(Adam, lr=5e-3), four_pairs, batch_size=64),
        steps=250,
        level=0.8,
        why="sums take the place of the softmax, and grow with the length",
    ),
    Case(
        name="memory-three-hops",
        family="memory-network",
        build=fit(Memory, using(Adam, lr=5e-3), eight_pairs, batch_size=64),
        steps=300,
        level=0.8,
        why="only the asked pair's slot gets a gradient worth the name once it is found",
    ),
    Case(
        name="linear-attention-over-nothing",
        family="linear-attention",
        build=fit(partial(linear, 0.0, 4), using(Adam, lr=5e-3), four_pairs, batch_size=64),
        steps=260,
        level=0.4,
        kinds=("nonfinite",),
        cures={
            "look at the loss": fit(
                partial(linear, 1e-3, 4), using(Adam, lr=5e-3), four_pairs, batch_size=64
            )
        },
        why="where no feature of a query meets one of the keys, nothing is divided by nothing",
    ),
    Case(
        name="memory-never-fires",
        family="memory-network",
        build=fit(partial(Memory, 40.0), using(torch.optim.Adadelta), eight_pairs, batch_size=64),
        steps=200,
        level=0.3,
        kinds=("dead", "not_learning", "vanishing"),
        cures={
            "initialisation": fit(Memory, using(torch.optim.Adadelta), eight_pairs, batch_size=64)
        },
        why="biases of -40 keep the units between memory and logits silent",
    ),
)
