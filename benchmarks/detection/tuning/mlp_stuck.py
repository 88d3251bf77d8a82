"""Perceptrons that turn to NaN, or do not move."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.tuning.faults import spoiled
from benchmarks.detection.tuning.inits import he
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import digits
from benchmarks.detection.tuning.training import momentum, sgd, stepping, trained

__all__ = ["CASES"]

failing = partial(Case, family="mlp")
on_digits = partial(trained, digits)
three = partial(perceptron, 3, initialise=he)


def narrow(*, cut: bool = False) -> nn.Sequential:
    """Return a narrow perceptron whose head may be cut off from the rest."""
    layers = list(perceptron(4, units=32))
    return nn.Sequential(*layers[:-1], Detached() if cut else nn.Identity(), layers[-1])


class Detached(nn.Module):
    """Lets nothing flow back."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the same numbers, cut off."""
        return inputs.detach()


class SafeNorm(nn.Module):
    """Divide each row by its length."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, inputs: Tensor) -> Tensor:
        """Return rows of length one."""
        squares = inputs.square().sum(dim=1, keepdim=True)
        return 8.0 * inputs / (squares.add(self.epsilon).sqrt() + 1e-6)


def unit_rows(epsilon: float) -> nn.Sequential:
    """Return a perceptron that normalises its rows after a layer without bias."""
    hidden = [nn.Linear(64, 64, bias=False), SafeNorm(epsilon), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def one_black(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Make the first image of a batch all zeros."""
    spoilt = inputs.clone()
    spoilt[0] = 0.0
    return spoilt, targets


NONFINITE = (
    failing(
        name="mlp-norm-of-zero",
        build=partial(
            trained, spoiled(digits, one_black, start=100, stop=101), partial(unit_rows, 0.0), sgd
        ),
        steps=200,
        level=0.7,
        kinds=("nonfinite",),
        onset=100,
        cures={
            "backward pass": partial(
                trained,
                spoiled(digits, one_black, start=100, stop=101),
                partial(unit_rows, 1e-6),
                sgd,
            ),
        },
        why="one black image has length zero, and a root has no slope there; the loss is finite",
    ),
)

STILL = (
    failing(
        name="mlp-detached",
        build=partial(on_digits, partial(narrow, cut=True), momentum),
        steps=250,
        level=0.8,
        kinds=("not_learning",),
        cures={"backward pass": partial(on_digits, narrow, momentum)},
        why="the features are detached, so only the head learns",
    ),
    failing(
        name="mlp-rate-too-small",
        build=partial(on_digits, three, stepping(2e-4)),
        steps=250,
        level=0.7,
        kinds=("not_learning",),
        cures={"higher learning rate": partial(on_digits, three, sgd)},
        why="at a rate of 0.0002 the loss falls hundreds of times too slowly",
    ),
)

CASES: tuple[Case, ...] = NONFINITE + STILL
