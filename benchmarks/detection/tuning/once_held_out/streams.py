"""Two images through a stream each; and narrow tanh layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out import sources
from benchmarks.detection.tuning.once_held_out.layers import Residual, scale_weights_
from benchmarks.detection.tuning.once_held_out.parts import Batch, Build, batches, fit

__all__ = ["CASES"]


class Streams(nn.Module):
    """Two images through a stream each; both classes are told from both streams' ends.

    Args:
        first: Stream of the first image, from 64 to 32 numbers.
        second: Stream of the second.
    """

    def __init__(self, first: Callable[[], nn.Module], second: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = first(), second()
        self.out = nn.Linear(64, 20)

    def forward(self, pairs: Tensor) -> Tensor:
        """Return logits ``(n, 2, 10)``."""
        ends = [self.first(pairs[:, 0].flatten(1)), self.second(pairs[:, 1].flatten(1))]
        logits: Tensor = self.out(torch.cat(ends, dim=1))
        return logits.reshape(-1, 2, 10)


def stream(
    depth: int,
    activation: Callable[[], nn.Module] = nn.ReLU,
    gain: float = 1.0,
    *,
    skip: bool = False,
) -> nn.Sequential:
    """Return dense layers from 64 to 32 numbers, their weights times a gain."""
    layers: list[nn.Module] = [nn.Linear(64, 32), activation()]
    for _ in range(depth):
        layer = [nn.Linear(32, 32), activation()]
        layers += [Residual(nn.LayerNorm(32), *layer)] if skip else layer
    net = nn.Sequential(*layers)
    scale_weights_(net, gain)
    return net


def both_right(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of pairs with both classes right."""
    return float((model(inputs).argmax(dim=-1) == targets).all(dim=1).float().mean())


def hundredfold(_step: int, batch: Batch) -> Batch:
    """Give the pixels as they come from a detector, in thousands."""
    return 3000.0 * batch[0], batch[1]


def squashed(depth: int = 3, *, norm: bool = False) -> nn.Sequential:
    """Return narrow tanh layers, with a norm of the inputs if asked for."""
    layers: list[nn.Module] = [nn.Flatten()]
    layers += [nn.LayerNorm(64)] if norm else []
    for width in (64, *[12] * (depth - 1)):
        layers += [nn.Linear(width, 12), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(12, 10))


two = partial(fit, score=both_right)


def streams(second: Callable[[], nn.Module], rate: float = 0.05) -> Build:
    """Return the training of two streams, of which the first is sound."""
    optimizer = partial(torch.optim.SGD, lr=rate, momentum=0.9)
    return two(partial(Streams, partial(stream, 2), second), optimizer, sources.digit_pairs)


CASES: tuple[Case, ...] = (
    Case(
        name="streams-one-vanishes",
        family="two-stream",
        build=streams(partial(stream, 8, nn.Sigmoid)),
        steps=240,
        level=0.4,
        kinds=("vanishing", "not_learning"),
        cures={"skip connections": streams(partial(stream, 8, skip=True))},
        why="the second image passes nine sigmoids, and its stream never hears of the loss",
    ),
    Case(
        name="streams-one-explodes",
        family="two-stream",
        build=streams(partial(stream, 5, nn.ReLU, 12.0)),
        steps=150,
        level=0.4,
        kinds=("exploding", "nonfinite", "diverging", "dead"),
        cures={"initialisation": streams(partial(stream, 5, nn.ReLU, 2.0))},
        why="one stream's weights are twelve times too large",
    ),
    Case(
        name="tanh-raw-pixels",
        family="narrow-tanh",
        build=fit(squashed, partial(torch.optim.SGD, lr=0.3), data.digits, batches(hundredfold)),
        steps=250,
        level=0.55,
        kinds=("saturated", "not_learning", "vanishing", "exploding"),
        cures={
            "normalisation": fit(
                partial(squashed, norm=True),
                partial(torch.optim.SGD, lr=0.3),
                data.digits,
                batches(hundredfold),
            ),
            "look at the data": fit(squashed, partial(torch.optim.SGD, lr=0.3), data.digits),
        },
        needs_activations=True,
        why="pixels in the thousands hold every tanh of the first layer at its flat end",
    ),
)
