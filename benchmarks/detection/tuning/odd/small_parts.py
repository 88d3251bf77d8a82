"""Nets that know a task already, of which a small part learns another.

In: images of digits, upright and lying down. Out: cases in which almost everything is frozen on
purpose, one after the other thaws, or all but one norm is frozen by mistake.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.tasks import classes
from benchmarks.detection.tuning.training import Task, trained

__all__ = ["CASES"]


class LowRank(nn.Module):
    """A frozen layer and a correction of low rank, which begins at zero.

    Args:
        layer: The frozen one.
        rank: Of the correction.
    """

    def __init__(self, layer: nn.Linear, rank: int = 6) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum of both."""
        total: Tensor = self.layer(inputs) + inputs @ self.down.T @ self.up.T
        return total


def lying() -> Task:
    """Tell digits apart that lie on their side."""
    inputs, targets, held_inputs, held_targets = data.digits()
    turned, held = inputs.rot90(1, (2, 3)), held_inputs.rot90(1, (2, 3))
    return classes((turned, targets, held, held_targets), 64)


def known() -> nn.Sequential:
    """Return a perceptron with layer norms that knows upright digits."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (64, 96, 96):
        layers += [nn.Linear(inputs, 96), nn.LayerNorm(96), nn.GELU()]
    net = nn.Sequential(*layers, nn.Linear(96, 10))
    task = classes(data.digits(), 64)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(120):
        optimizer.zero_grad()
        torch.autograd.backward(task.loss(net, task.draw(step)))
        optimizer.step()
    return net


def corrected() -> nn.Module:
    """Return the net frozen, with corrections of low rank."""
    net = known().requires_grad_(requires_grad=False)
    return nn.Sequential(*(LowRank(x) if isinstance(x, nn.Linear) else x for x in net))


def biases_only() -> nn.Module:
    """Return the net with all matrices frozen; biases and norms may move."""
    net = known()
    for parameter in net.parameters():
        parameter.requires_grad_(parameter.dim() == 1)
    return net


def one_norm_only() -> nn.Module:
    """Return the net with everything frozen but its last norm."""
    net = known().requires_grad_(requires_grad=False)
    net[8].requires_grad_()
    return net


def thaw(training: Training, step: int) -> None:
    """Freeze all but the head first; let one more block move every 50 steps, the last one first."""
    for index, layer in enumerate(training.model.children()):
        layer.requires_grad_(index >= 10 - 3 * (step // 50))


adamw = partial(torch.optim.AdamW, lr=5e-3)


CASES: tuple[Case, ...] = (
    Case(
        name="low-rank-corrections",
        family="low-rank",
        build=partial(trained, lying, corrected, adamw),
        steps=200,
        level=0.75,
        why="small factors move beside frozen layers, and half of them begin at zero",
    ),
    Case(
        name="biases-and-norms-only",
        family="fine-tuning",
        build=partial(trained, lying, biases_only, partial(torch.optim.AdamW, lr=2e-2)),
        steps=300,
        level=0.6,
        why="every matrix is frozen on purpose, and what is left can learn the task",
    ),
    Case(
        name="thawed-one-by-one",
        family="fine-tuning",
        build=partial(trained, lying, known, partial(torch.optim.AdamW, lr=2e-3), fault=thaw),
        steps=250,
        level=0.75,
        why="layers begin to move one after the other, fifty steps apart",
    ),
    Case(
        name="frozen-but-one-norm",
        family="fine-tuning",
        build=partial(trained, lying, one_norm_only, adamw),
        steps=200,
        level=0.75,
        kinds=("not_learning", "vanishing"),
        cures={"backward pass": partial(trained, lying, known, adamw)},
        why="everything was frozen by mistake, and one norm alone can move",
    ),
)
