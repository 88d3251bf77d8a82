"""Time series: what comes next, how sure it is, and what pitch a wave has."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.sequences import sources
from benchmarks.detection.held_out.sequences.attention import Attention, Block
from benchmarks.detection.held_out.sequences.parts import (
    Batch,
    Build,
    Twist,
    changed,
    each_step,
    explained,
    fit,
    on_batches,
    squared_error,
    using,
)

__all__ = ["CASES"]


class Basis(nn.Module):
    """Blocks that each explain a part of the past away, and add their part of the future."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(36, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 48)
            )
            for _ in range(4)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the future."""
        past, future = inputs, torch.zeros(len(inputs), 12)
        for block in self.blocks:
            back, ahead = block(past).split([36, 12], dim=1)
            past, future = past - back, future + ahead
        return future


class Sure(nn.Module):
    """A GRU that tells the next value, and how sure it is."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.GRU(1, 24, batch_first=True), nn.Linear(24, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mean and the logarithm of the deviation, for each place."""
        told: Tensor = self.out(self.body(inputs.unsqueeze(2))[0])
        return told


def unlikeliness(model: nn.Module, inputs: Tensor, _targets: Tensor) -> Tensor:
    """Return the negative log-density of each next value, less a constant."""
    mean, size = model(inputs[:, :-1]).unbind(dim=2)
    parts: Tensor = 0.5 * ((inputs[:, 1:] - mean) / size.exp()).square() + size
    return parts.mean()


def likeliness(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the mean log-density, less a constant."""
    return -float(unlikeliness(model, inputs, targets))


class Wave(nn.Module):
    """Dilated convolutions, gated by a sigmoid.

    Args:
        depth: How many.
        skip: Whether each passes on what it was given, too, and all are added up in the end.
    """

    def __init__(self, depth: int, *, skip: bool) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 16, 4, stride=4)
        self.layers = nn.ModuleList(
            nn.Conv1d(16, 32, 3, dilation=2 ** (index % 4), padding="same")
            for index in range(depth)
        )
        self.out, self.skip = nn.Linear(16, 6), skip

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of the pitch."""
        state, total = self.first(inputs), torch.zeros(())
        for layer in self.layers:
            new, gate = layer(state).chunk(2, dim=1)
            passed = torch.tanh(new) * torch.sigmoid(gate)
            state = state + passed if self.skip else passed
            total = total + passed if self.skip else passed
        logits: Tensor = self.out(total.square().mean(dim=2))
        return logits


class Skipping(nn.Module):
    """Blocks of attention that are left out by chance, on strings of flags.

    Args:
        survival: Chance that a part takes place in training.
    """

    def __init__(self, survival: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 32)
        self.blocks = nn.ModuleList(
            Block(Attention(32, 2, "rotary"), 32, survival=survival) for _ in range(4)
        )
        self.out = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of the order of the flags."""
        state = self.embed(inputs)
        for block in self.blocks:
            state = block(state)
        logits: Tensor = self.out(state[:, -1])
        return logits


def fading(training: Training, step: int) -> None:
    """Let no part take place any more from step 15 on."""
    for block in training.model.modules():
        if isinstance(block, Block):
            block.survival = 0.7 if step < 15 else 0.0


def other_unit(step: int, past: Tensor, future: Tensor) -> Batch:
    """Send one batch in another unit: ten thousand times larger."""
    return (past * 1e4, future * 1e4) if step == 90 else (past, future)


def wave(depth: int, *, skip: bool) -> Build:
    """Return a training that tells the pitch of a wave."""
    sgd = using(torch.optim.SGD, lr=0.05, momentum=0.9)
    return fit(partial(Wave, depth, skip=skip), sgd, sources.tones, batch_size=16)


def basis(rate: float, *twists: Twist, momentum: float = 0.9) -> Build:
    """Return a training that tells twelve points ahead, by plain steps."""
    sgd = using(torch.optim.SGD, lr=rate, momentum=momentum)
    return fit(Basis, sgd, sources.series, *twists, loss=squared_error, score=explained)


def skipping(survival: float, *twists: Twist) -> Build:
    """Return a training of blocks that are left out by chance."""
    flags = partial(sources.order_of_flags, 20)
    return fit(partial(Skipping, survival), using(AdamW, lr=1.5e-3), flags, *twists)


AdamW = torch.optim.AdamW

CASES: tuple[Case, ...] = (
    Case(
        name="basis-absolute-error",
        family="basis-expansion",
        build=fit(
            Basis,
            using(torch.optim.Adam, lr=3e-3, amsgrad=True),
            sources.series,
            loss=lambda model, past, future: nn.functional.l1_loss(model(past), future),
            score=explained,
        ),
        steps=300,
        level=0.8,
        why="absolute errors have gradients that do not shrink as the error does",
    ),
    Case(
        name="sure-below-zero",
        family="density-forecast",
        build=fit(
            Sure,
            using(torch.optim.NAdam, lr=5e-3),
            sources.series,
            loss=unlikeliness,
            score=likeliness,
        ),
        steps=220,
        level=0.6,
        why="the loss is a log-density: it passes zero and goes on falling",
    ),
    Case(
        name="wave-tells-pitch",
        family="wavenet",
        build=fit(
            partial(Wave, 7, skip=True),
            using(torch.optim.Adamax, lr=1e-2),
            sources.tones,
            batch_size=16,
        ),
        steps=200,
        level=0.8,
        why="the output of each of seven gated layers goes straight to the end",
    ),
    Case(
        name="blocks-left-out",
        family="stochastic-depth",
        build=skipping(0.7),
        steps=250,
        level=0.8,
        why="by chance, three of ten parts have no gradient in a step",
    ),
    Case(
        name="wave-without-skips",
        family="wavenet",
        build=wave(14, skip=False),
        steps=200,
        level=0.5,
        kinds=("vanishing", "not_learning"),
        cures={"skip connections": wave(14, skip=True)},
        why="fourteen gates in a row, each of which halves the wave, hide the sound from the loss",
    ),
    Case(
        name="blocks-all-left-out",
        family="stochastic-depth",
        build=skipping(0.7, each_step(fading)),
        steps=250,
        level=0.7,
        kinds=("vanishing", "not_learning"),
        onset=15,
        cures={"schedule": skipping(0.7)},
        why="a schedule sets the chance of each block to nothing, and they never learn again",
    ),
    Case(
        name="basis-other-unit",
        family="basis-expansion",
        build=basis(0.02, on_batches(other_unit)),
        steps=220,
        level=0.5,
        kinds=("exploding", "diverging", "nonfinite", "dead", "not_learning"),
        onset=90,
        cures={"clip by norm": basis(0.02, on_batches(other_unit), changed(clip_norm=1.0))},
        why="one batch comes in another unit, ten thousand times larger, and wrecks all weights",
    ),
    Case(
        name="basis-heavy-momentum",
        family="basis-expansion",
        build=basis(1.0, momentum=0.98),
        steps=220,
        level=0.5,
        kinds=("diverging", "exploding", "nonfinite", "dead"),
        cures={"lower learning rate": basis(0.01, momentum=0.98)},
        why="momentum of 0.98 at a rate of one swings ever wider",
    ),
)
