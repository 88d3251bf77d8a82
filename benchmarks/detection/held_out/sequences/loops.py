"""Recurrent cells in loops: counting brackets, remembering flags, adding, writing on and on."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.sequences import sources
from benchmarks.detection.held_out.sequences.cells import (
    Diagonal,
    Looped,
    Minimal,
    QuasiRecurrent,
    Tagger,
)
from benchmarks.detection.held_out.sequences.parts import (
    Batch,
    Build,
    changed,
    explained,
    fit,
    on_batches,
    scheduled,
    squared_error,
    using,
)

__all__ = ["CASES"]


def counter(body: nn.Module) -> Tagger:
    """Return a net that says at each place how many brackets are open."""
    return Tagger(body, symbols=2, width=32, classes=8, everywhere=True)


def minimal(gate: float) -> Tagger:
    """Return a minimal gated unit that tells four classes apart at the end."""
    return Tagger(Minimal(32, gate), symbols=6, width=32, classes=4)


def diagonal(least: float, most: float) -> Tagger:
    """Return a linear recurrence that tells four classes apart at the end."""
    net = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU())
    return Tagger(Diagonal(32, least, most), net, symbols=6, width=32, classes=4)


def foreteller(least: float, most: float) -> nn.Module:
    """Return a linear recurrence that tells the next twelve numbers."""
    body = Diagonal(32, least, most)
    return nn.Sequential(
        nn.Unflatten(1, (36, 1)), Tagger(body, symbols=0, features=1, width=32, classes=12)
    )


def identity_adder() -> Tagger:
    """Return a ReLU recurrence that begins as the identity."""
    cell = nn.RNNCell(32, 32, nonlinearity="relu")
    nn.init.eye_(cell.weight_hh)
    nn.init.zeros_(cell.bias_hh)
    nn.init.normal_(cell.weight_ih, std=0.05)
    return Tagger(Looped(cell), symbols=0, features=2, width=32, classes=1)


def stacked_cells() -> Tagger:
    """Return two LSTM cells on top of each other."""
    cells = (Looped(nn.LSTMCell(32, 32)) for _ in range(2))
    return Tagger(*cells, symbols=2, width=32, classes=8, everywhere=True)


def longer(step: int, inputs: Tensor, targets: Tensor) -> Batch:
    """Show the first 4 places, then more."""
    length = min(inputs.shape[1], 4 + step // 10)
    return inputs[:, :length], targets[:, :length]


class Stream(nn.Module):
    """A GRU that goes on where the last batch left it, without gradient across batches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell = nn.Embedding(128, 32), nn.GRUCell(32, 48)
        self.out = nn.Linear(48, 128)
        self.carried = torch.zeros(16, 48)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits for each place."""
        state = self.carried if self.training else torch.zeros(len(inputs), 48)
        states = []
        for place in self.embed(inputs).unbind(dim=1):
            state = self.cell(place, state)
            states.append(state)
        if self.training:
            self.carried = state.detach()
        logits: Tensor = self.out(torch.stack(states, dim=1))
        return logits


def streaming() -> Training:
    """Return a training that reads sixteen passages of one page at once, from start to end."""
    training = fit(Stream, using(torch.optim.Adam, lr=5e-3), partial(sources.next_characters, 60))()
    rows = sources.code()[0][:38400].view(16, -1)

    def onward(step: int) -> Batch:
        begin = step * 12 % (rows.shape[1] - 13)
        return rows[:, begin : begin + 12], rows[:, begin + 1 : begin + 13]

    training.batch = onward
    return training


Adam = torch.optim.Adam
flags = partial(sources.order_of_flags, 60)
early_flags = partial(sources.order_of_flags, 40)
brackets = partial(sources.brackets, 24)
onecycle = partial(scheduled, OneCycleLR, max_lr=0.02, total_steps=220)
rms = using(torch.optim.RMSprop, lr=2e-3, centered=True)


def gated(gate: float) -> Build:
    """Return a training of a minimal gated unit that has to keep two flags."""
    return fit(partial(minimal, gate), using(Adam, lr=5e-3), early_flags)


def recurrence(least: float, most: float) -> Build:
    """Return a training of a linear recurrence that has to keep two flags."""
    return fit(partial(diagonal, least, most), using(Adam, lr=5e-3), flags)


def foretelling(least: float, most: float) -> Build:
    """Return a training of a linear recurrence that tells what comes next."""
    return fit(
        partial(foreteller, least, most),
        using(torch.optim.SGD, lr=0.002, momentum=0.9),
        sources.series,
        loss=squared_error,
        score=explained,
    )


CASES: tuple[Case, ...] = (
    Case(
        name="minimal-gate-keeps-flags",
        family="minimal-gated-unit",
        build=gated(-3.0),
        steps=160,
        level=0.7,
        why="a gate that begins nearly shut carries two flags over forty places",
    ),
    Case(
        name="diagonal-keeps-flags",
        family="diagonal-recurrence",
        build=recurrence(0.8, 1.0),
        steps=300,
        level=0.7,
        why="factors between 0.8 and one: some numbers of the state forget soon, some never",
    ),
    Case(
        name="identity-relu-adds",
        family="identity-recurrence",
        build=fit(
            identity_adder,
            using(Adam, lr=3e-3),
            partial(sources.adding, 20),
            changed(clip_norm=1.0),
            scheduled(CosineAnnealingLR, T_max=600),
            loss=squared_error,
            score=explained,
        ),
        steps=600,
        level=0.7,
        why="a ReLU recurrence that begins as the identity stands still before it adds",
    ),
    Case(
        name="lstm-cells-count-longer",
        family="lstm-cells",
        build=fit(stacked_cells, using(Adam, lr=1e-3), brackets, on_batches(longer), onecycle()),
        steps=220,
        level=0.8,
        why="strings grow longer as one cycle of the rate goes up and down",
    ),
    Case(
        name="quasi-recurrent-counts",
        family="quasi-recurrent",
        build=fit(lambda: counter(QuasiRecurrent(32)), rms, partial(sources.brackets, 12)),
        steps=300,
        level=0.5,
        why="gates come from two neighbouring places only, and the loss ends far from zero",
    ),
    Case(
        name="gru-carries-its-state",
        family="gru-cell",
        build=streaming,
        steps=320,
        level=0.36,
        why="the state is carried from batch to batch, so that neighbouring batches are alike",
    ),
    Case(
        name="minimal-gate-overwrites",
        family="minimal-gated-unit",
        build=gated(5.0),
        steps=160,
        level=0.5,
        kinds=("vanishing", "not_learning"),
        cures={"initialisation": gated(-3.0)},
        why="a gate that begins wide open replaces the state at each of forty places",
    ),
    Case(
        name="diagonal-forgets",
        family="diagonal-recurrence",
        build=recurrence(0.1, 0.5),
        steps=220,
        level=0.5,
        kinds=("vanishing", "not_learning"),
        cures={"initialisation": recurrence(0.8, 1.0)},
        why="factors below a half leave nothing of the flags after fifty places",
    ),
    Case(
        name="diagonal-grows",
        family="diagonal-recurrence",
        build=foretelling(1.05, 1.18),
        steps=250,
        level=0.5,
        kinds=("exploding", "nonfinite", "diverging"),
        cures={"initialisation": foretelling(0.3, 0.95)},
        why="factors of 1.05 to 1.18 multiply what was read first by up to 400 in 36 places",
    ),
)
