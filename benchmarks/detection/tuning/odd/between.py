"""Meta-learning: weights go back most of the way between tasks.

In: waves of different height and phase. Out: a case in which each task is begun from weights from
which any of them is near.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import explained
from benchmarks.detection.tuning.training import Batch

__all__ = ["CASES"]

INNER = 8
"""Steps on each task."""

sgd = partial(torch.optim.SGD, lr=0.03)


class Waves:
    """A wave of random height and phase, and points on it."""

    def __init__(self) -> None:
        self.again()

    def again(self) -> None:
        """Choose another."""
        self.height, self.phase = 1.0 + 2.0 * torch.rand(()), 0.8 * torch.rand(())

    def draw(self, count: int = 32) -> Batch:
        """Return places and heights."""
        places = 6.0 * torch.rand(count, 1) - 3.0
        return places, self.height * torch.sin(2.0 * places + self.phase)


def adapted(model: nn.Module) -> float:
    """Return what the model explains of new waves after a few steps on each; the mean of ten."""
    scores: list[float] = []
    for _ in range(10):
        own, wave = deepcopy(model), Waves()
        optimizer = sgd(own.parameters())
        for _ in range(INNER):
            optimizer.zero_grad()
            with torch.enable_grad():
                torch.autograd.backward(error(own, wave.draw()))
            optimizer.step()
        places, heights = wave.draw(500)
        scores.append(explained(own(places), heights))
    return sum(scores) / len(scores)


def error(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean squared error."""
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def reptile(share: float) -> Training:
    """Return a training that keeps only a share of what is learnt on each task."""
    model, wave = perceptron(2, nn.Tanh, inputs=1, outputs=1), Waves()
    kept = deepcopy(model.state_dict())

    def turn(step: int) -> None:
        if step == 0 or step % INNER:
            return
        for name, value in model.state_dict().items():
            kept[name].lerp_(value, share)
        model.load_state_dict(kept)
        wave.again()

    return Training(
        model=model,
        optimizers=[sgd(model.parameters())],
        batch=lambda _step: wave.draw(),
        loss=lambda batch, _index: error(model, batch),
        score=lambda: adapted(model),
        before_step=turn,
    )


CASES: tuple[Case, ...] = (
    Case(
        name="half-way-back-between-tasks",
        family="meta-learning",
        build=partial(reptile, 0.5),
        steps=500,
        level=0.6,
        why="every eighth step weights go half of the way back, and the loss jumps up",
    ),
)
