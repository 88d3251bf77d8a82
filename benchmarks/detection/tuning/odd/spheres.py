"""Weights whose size does not matter, or must not change.

In: images of digits. Out: a case with weights on a sphere, and one with weights that decay to a
fraction of what they were.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import digits
from benchmarks.detection.tuning.training import trained

__all__ = ["CASES"]


class Directions(nn.Module):
    """A linear layer without bias, whose rows are meant to be one long.

    Args:
        inputs: Numbers that go in.
        outputs: Numbers that come out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        rows = nn.functional.normalize(torch.randn(outputs, inputs))
        self.weight = nn.Parameter(rows)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the cosine with each row, times ten."""
        return 10.0 * nn.functional.normalize(inputs) @ self.weight.T


def cosines() -> nn.Sequential:
    """Return three layers of directions."""
    layers = [Directions(64, 96), nn.ReLU(), Directions(96, 96), nn.ReLU(), Directions(96, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


def on_sphere() -> Training:
    """Return a training in which every step ends by making each row one long again."""
    training = trained(digits, cosines, partial(torch.optim.Adam, lr=3e-3))

    def project(*_: object) -> None:
        with torch.no_grad():
            for weight in training.model.parameters():
                weight.copy_(nn.functional.normalize(weight))

    training.optimizers[0].register_step_post_hook(project)
    return training


def normed() -> nn.Sequential:
    """Return a net in which a batch norm follows every layer, the last one, too."""
    net = perceptron(2, units=96, norm=True)
    return nn.Sequential(net, nn.BatchNorm1d(10))


def matrices_decay(weight_decay: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what makes a decoupled Adam under which only matrices decay."""

    def make(parameters: object) -> torch.optim.Optimizer:
        every: list[nn.Parameter] = list(parameters)  # type: ignore[call-overload]
        groups = [
            {"params": [p for p in every if p.dim() > 1], "weight_decay": weight_decay},
            {"params": [p for p in every if p.dim() == 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=2e-3)

    return make


CASES: tuple[Case, ...] = (
    Case(
        name="rows-on-a-sphere",
        family="normalised-weights",
        build=on_sphere,
        steps=200,
        level=0.85,
        why="rows are made one long after each step, so the size of no weight ever changes",
    ),
    Case(
        name="normed-weights-decay",
        family="mlp",
        build=partial(trained, digits, normed, matrices_decay(8.0)),
        steps=400,
        level=0.85,
        why="weights shrink to a fraction, which the batch norms after them make good",
    ),
)
