"""Nets that repeat a layer, or that write the weights of others."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.data import Split
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import (
    Task,
    accuracy,
    cross_entropy,
    explained,
    fit,
    perceptron,
    squared_error,
)

__all__ = ["CASES"]


class Equilibrium(nn.Module):
    """A layer that is repeated until it changes nothing more; only its last pass has a gradient.

    Args:
        width: Of the state.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.enter, self.turn = nn.Linear(64, width), nn.Linear(width, width, bias=False)
        self.leave = nn.Linear(width, 10)
        with torch.no_grad():
            self.turn.weight.mul_(0.8)

    def forward(self, images: Tensor) -> Tensor:
        """Return what the state at rest says."""
        entered = self.enter(images)
        state = torch.zeros_like(entered)
        with torch.no_grad():
            for _ in range(15):
                state = (self.turn(state) + entered).tanh()
        logits: Tensor = self.leave((self.turn(state) + entered).tanh())
        return logits


def dictionary() -> Tensor:
    """Return 40 directions of 20 numbers, as columns; always the same."""
    return nn.functional.normalize(
        torch.randn(20, 40, generator=torch.Generator().manual_seed(5)), dim=0
    )


class Shrinkage(nn.Module):
    """Learned iterations from a rough dictionary to a sparse code: a step, a soft threshold.

    Args:
        pace: Length of a step, relative to what is stable.
        rounds: Iterations.
    """

    def __init__(self, pace: float, rounds: int) -> None:
        super().__init__()
        atoms = nn.functional.normalize(dictionary() + 0.15 * torch.randn(20, 40), dim=0)
        self.atoms, self.rounds = nn.Parameter(atoms), rounds
        self.threshold = nn.Parameter(torch.full((40,), 0.05))
        self.pace = pace / float(torch.linalg.matrix_norm(atoms, 2)) ** 2

    def forward(self, signals: Tensor) -> Tensor:
        """Return sparse codes of the signals."""
        codes = torch.zeros(len(signals), 40)
        for _ in range(self.rounds):
            codes = codes - self.pace * (codes @ self.atoms.T - signals) @ self.atoms
            codes = codes.sign() * (codes.abs() - self.threshold).relu()
        return codes


class Leaky(nn.Module):
    """A state that leaks away while it is pushed by what comes in.

    Args:
        leak: Share that is lost per moment.
    """

    def __init__(self, leak: float) -> None:
        super().__init__()
        self.push, self.mix = nn.Linear(2, 32), nn.Linear(32, 32)
        self.leave, self.leak = nn.Linear(32, 4), leak

    def forward(self, path: Tensor) -> Tensor:
        """Return what the state at the end of a path says; time is the second dimension."""
        state = torch.zeros(len(path), 32)
        for moment in path.unbind(1):
            pushed = self.push(moment) + self.mix(state)
            state = (1.0 - self.leak) * state + self.leak * pushed.tanh()
        logits: Tensor = self.leave(state)
        return logits


class Written(nn.Module):
    """A net writes the weights of another one, which is then asked.

    Args:
        gain: Times the writing layer's weights.
    """

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.writer = perceptron(2, 32, 16 + 16 + 256 + 16 + 16 + 1, act=nn.Tanh)
        with torch.no_grad():
            for parameter in self.writer[2].parameters():
                parameter.mul_(gain)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the answers; two numbers describe a function, the third is its argument."""
        parts = self.writer(inputs[:, :2]).split([16, 16, 256, 16, 16, 1], dim=1)
        hidden = (parts[0] * inputs[:, 2:] + parts[1]).tanh().unsqueeze(2)
        hidden = nn.functional.silu(parts[2].unflatten(1, (16, 16)) @ hidden + parts[3][..., None])
        answer: Tensor = (hidden.squeeze(2) * parts[4]).sum(dim=1, keepdim=True) + parts[5]
        return answer


def waves() -> Split:
    """Return a height, a shift and an argument ``(n, 3)``, and the wave's value there."""
    inputs = torch.rand(2000, 3, generator=torch.Generator().manual_seed(3)) * 4.0 - 2.0
    value = inputs[:, :1] * (1.5 * inputs[:, 2:] + inputs[:, 1:2]).sin()
    return inputs[:1600], value[:1600], inputs[1600:], value[1600:]


def sparse_codes() -> Split:
    """Return signals of 20 numbers, and the sparse codes of 40 that made them."""
    generator = torch.Generator().manual_seed(5)
    codes = 3.0 * torch.randn(3000, 40, generator=generator)
    codes = codes * (torch.rand(3000, 40, generator=generator) < 0.06)
    signals = codes @ dictionary().T
    return signals[:2400], codes[:2400], signals[2400:], codes[2400:]


def impulses() -> Split:
    """Return paths of 30 moments begun by one of four pushes, and which; the rest is noise."""
    generator = torch.Generator().manual_seed(9)
    which = torch.randint(4, (1600,), generator=generator)
    paths = 0.3 * torch.randn(1600, 30, 2, generator=generator)
    pushes = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    paths[:, :3] += pushes[which].unsqueeze(1)
    return paths[:1280], which[:1280], paths[1280:], which[1280:]


Digits = Task(split=sources.flat_digits, loss=cross_entropy, score=accuracy, size=24)
Codes = Task(split=sparse_codes, loss=squared_error, score=explained, size=64)
Waves = Task(split=waves, loss=squared_error, score=explained, size=64)
Impulses = Task(split=impulses, loss=cross_entropy, score=accuracy, size=32)
adam = partial(torch.optim.Adam, lr=5e-3)
plain = partial(torch.optim.SGD, lr=0.02)
momentum = partial(torch.optim.SGD, lr=1.1, momentum=0.5)
steady = partial(torch.optim.SGD, lr=0.1, momentum=0.9)

CASES: tuple[Case, ...] = (
    Case(
        name="at-rest",
        family="deep-equilibrium",
        build=fit(Digits, Equilibrium, partial(torch.optim.SGD, lr=0.1, momentum=0.5)),
        steps=250,
        level=0.8,
        why="fifteen passes without gradient come before the one that has some",
    ),
    Case(
        name="written-waves",
        family="hypernetwork",
        build=fit(Waves, partial(Written, 0.7), adam, clip_norm=1.0),
        steps=350,
        level=0.7,
        why="one layer has nearly all the weights, and what they do depends on the example",
    ),
    Case(
        name="learned-shrinkage",
        family="unrolled",
        build=fit(Codes, partial(Shrinkage, 1.0, 10), momentum),
        steps=250,
        level=0.5,
        why="ten rounds share one matrix, most of the code is zero, and rates above one are right",
    ),
    Case(
        name="shrinkage-too-fast",
        family="unrolled",
        build=fit(Codes, partial(Shrinkage, 3.0, 10), adam),
        steps=150,
        level=0.4,
        kinds=("exploding", "nonfinite", "diverging"),
        cures={"initialisation": fit(Codes, partial(Shrinkage, 1.0, 10), adam)},
        why="inner steps three times too long make the codes grow in each of ten rounds",
    ),
    Case(
        name="leaks-away",
        family="leaky-integrator",
        build=fit(Impulses, partial(Leaky, 0.8), steady),
        steps=200,
        level=0.6,
        kinds=("vanishing", "not_learning"),
        cures={"initialisation": fit(Impulses, partial(Leaky, 0.05), steady)},
        why="a state that loses four fifths per moment forgets the push, and so does the gradient",
    ),
    Case(
        name="written-too-large",
        family="hypernetwork",
        build=fit(Waves, partial(Written, 3.5), plain),
        steps=250,
        level=0.3,
        kinds=("exploding", "diverging", "nonfinite"),
        cures={"initialisation": fit(Waves, partial(Written, 0.7), plain)},
        why="weights that a layer writes begin far too large, and their products larger still",
    ),
)
