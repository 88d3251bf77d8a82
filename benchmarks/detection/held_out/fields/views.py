"""Learning without classes, from two views of an image."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import (
    Task,
    fit,
    perceptron,
)

__all__ = ["CASES"]

normalize = nn.functional.normalize


def view(images: Tensor) -> Tensor:
    """Return images moved sideways by up to a pixel, with noise and a tenth of the pixels gone."""
    moved = images.view(-1, 8, 8).roll(int(torch.randint(-1, 2, ())), dims=2).flatten(1)
    kept = torch.rand_like(moved) > 0.1
    seen: Tensor = moved * kept + 0.2 * torch.randn_like(moved)
    return seen


def contrast(
    model: nn.Module, images: Tensor, _classes: Tensor, *, temperature: float = 0.2
) -> Tensor:
    """Return the cross entropy of finding an image's other view among those of all images."""
    one, other = (normalize(model(view(images)), dim=1) for _ in range(2))
    return nn.functional.cross_entropy(one @ other.T / temperature, torch.arange(len(images)))


def found(model: nn.Module, images: Tensor, _classes: Tensor) -> float:
    """Return the share of a hundred images whose other view is nearest to theirs."""
    torch.manual_seed(0)
    images = images[:100]
    one, other = (normalize(model(view(images)), dim=1) for _ in range(2))
    return float(((one @ other.T).argmax(dim=1) == torch.arange(len(images))).float().mean())


def embedding() -> nn.Sequential:
    """Return a net whose outputs have mean 0 and variance 1 over the batch."""
    first, second = nn.Linear(64, 96), nn.Linear(96, 32)
    return nn.Sequential(
        first, nn.BatchNorm1d(96), nn.ReLU(), second, nn.BatchNorm1d(32, affine=False)
    )


class Twins(nn.Module):
    """A net foresees what a slow copy of it makes of another view."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.teacher = embedding(), embedding()
        self.teacher.load_state_dict(self.own.state_dict())
        self.teacher.requires_grad_(requires_grad=False)
        self.foresee = nn.Sequential(
            nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings."""
        embedded: Tensor = self.own(images)
        return embedded


def foreseen(model: Twins, images: Tensor, _classes: Tensor) -> Tensor:
    """Return how far the foreseen embedding is from the teacher's."""
    one, other = view(images), view(images)
    guess = normalize(model.foresee(model.own(one)), dim=1)
    with torch.no_grad():
        truth = normalize(model.teacher(other), dim=1)
    return 2.0 - 2.0 * (guess * truth).sum(dim=1).mean()


def follow(training: Training, _step: int) -> None:
    """Let the teacher follow slowly."""
    own, teacher = (training.model.get_submodule(name) for name in ("own", "teacher"))
    with torch.no_grad():
        for slow, weight in zip(teacher.parameters(), own.parameters(), strict=True):
            slow.lerp_(weight, 0.02)


Views = Task(split=sources.flat_digits, loss=contrast, score=found, size=64)
Dull = Task(
    split=sources.flat_digits, loss=partial(contrast, temperature=2e4), score=found, size=64
)
Foreseen = Task(split=sources.flat_digits, loss=foreseen, score=found, size=64)
embed = partial(perceptron, 64, 96, 32)
sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
adam = partial(torch.optim.Adam, lr=5e-3)

CASES: tuple[Case, ...] = (
    Case(
        name="views-contrast",
        family="contrastive",
        build=fit(Views, embed, sgd),
        steps=300,
        level=0.3,
        why="the other images of a batch are what each one is told from, and the loss stays high",
    ),
    Case(
        name="twins-foresee",
        family="self-distillation",
        build=fit(Foreseen, Twins, adam, before=follow),
        steps=500,
        level=0.14,
        why="the target is a slow copy of the net itself, so the loss rises where it learns",
    ),
    Case(
        name="views-too-warm",
        family="contrastive",
        build=fit(Dull, embed, sgd),
        steps=250,
        level=0.3,
        kinds=("not_learning", "vanishing"),
        cures={"look at the loss": fit(Views, embed, sgd)},
        why="a temperature of 20000 makes all views equally likely, and slopes next to nothing",
    ),
)
