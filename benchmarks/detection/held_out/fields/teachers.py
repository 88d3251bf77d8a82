"""A pupil of a trained net, and classes that are told by nearness."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import (
    Task,
    accuracy,
    cross_entropy,
    fit,
    perceptron,
)

__all__ = ["CASES"]


class Pupil(nn.Module):
    """A small net beside a large one that was trained before."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = perceptron(64, 96, 10)
        optimizer = torch.optim.Adam(self.teacher.parameters(), lr=3e-3)
        inputs, targets, *_ = sources.flat_digits()
        for _ in range(150):
            rows = torch.randint(len(inputs), (64,))
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(self.teacher, inputs[rows], targets[rows]))
            optimizer.step()
        self.teacher.requires_grad_(requires_grad=False)
        self.own = perceptron(64, 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the pupil's logits."""
        logits: Tensor = self.own(images)
        return logits


def taught(model: Pupil, images: Tensor, _classes: Tensor) -> Tensor:
    """Return the divergence from the teacher's probabilities at a temperature of four."""
    heat = 4.0
    truth = (model.teacher(images) / heat).softmax(dim=1)
    guess = (model.own(images) / heat).log_softmax(dim=1)
    divergence: Tensor = (truth * (truth.log() - guess)).sum(dim=1).mean()
    return heat**2 * divergence


def turned_round(model: Pupil, images: Tensor, _classes: Tensor) -> Tensor:
    """Return the divergence of the teacher from the pupil, when the teacher is very certain."""
    truth = (50.0 * model.teacher(images)).softmax(dim=1)
    guess = model.own(images).softmax(dim=1)
    divergence: Tensor = (guess * (guess.log() - truth.log())).sum(dim=1).mean()
    return divergence


class Proxies(nn.Module):
    """Embeddings on a sphere, and one learned place on it per class.

    Args:
        scale: What cosines are multiplied by.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.body, self.scale = perceptron(64, 64, 24, act=nn.PReLU), scale
        self.places = nn.Parameter(torch.randn(10, 24))

    def forward(self, images: Tensor) -> Tensor:
        """Return scaled cosines."""
        embedded = nn.functional.normalize(self.body(images), dim=1)
        cosines: Tensor = embedded @ nn.functional.normalize(self.places, dim=1).T
        return self.scale * cosines


def few_shots(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the cross entropy of an episode: five classes, three shown images of each."""
    return nn.functional.cross_entropy(*episode(model, images, classes, torch.randperm(7)[:5]))


def episode(
    model: nn.Module, images: Tensor, classes: Tensor, chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the nearness of six images per class to the mean of three others, and the classes."""
    rows = [(classes == c).nonzero().squeeze(1) for c in chosen]
    picked = torch.stack([r[torch.randperm(len(r))[:9]] for r in rows])
    embedded = model(images[picked.flatten()]).unflatten(0, (len(chosen), 9))
    means, asked = embedded[:, :3].mean(dim=1), embedded[:, 3:].flatten(0, 1)
    near = -torch.cdist(asked, means).square()
    return near, torch.arange(len(chosen)).repeat_interleave(6)


def new_classes(model: nn.Module, images: Tensor, classes: Tensor) -> float:
    """Return the accuracy on three classes that no episode had."""
    torch.manual_seed(0)
    unseen = torch.tensor([7, 8, 9])
    rounds = [episode(model, images, classes, unseen) for _ in range(20)]
    return sum(float((n.argmax(dim=1) == c).float().mean()) for n, c in rounds) / len(rounds)


Taught = Task(split=sources.flat_digits, loss=taught, score=accuracy, size=32)
TurnedRound = Task(split=sources.flat_digits, loss=turned_round, score=accuracy, size=32)
Digits = Task(split=sources.flat_digits, loss=cross_entropy, score=accuracy, size=32)
Episodes = Task(split=sources.flat_digits, loss=few_shots, score=new_classes, size=None)
rms = partial(torch.optim.RMSprop, lr=2e-3)
embed = partial(perceptron, 64, 96, 32)
adam = partial(torch.optim.Adam, lr=3e-3)

CASES: tuple[Case, ...] = (
    Case(
        name="pupil-of-teacher",
        family="distillation",
        build=fit(Taught, Pupil, rms),
        steps=300,
        level=0.75,
        why="half of the net is a teacher that never learns; the loss is sixteen divergences",
    ),
    Case(
        name="proxies-sixteen",
        family="proxy-metric",
        build=fit(Digits, partial(Proxies, 16.0), partial(torch.optim.Adagrad, lr=0.05)),
        steps=250,
        level=0.8,
        why="lengths do not count, so gradients are always across the weights",
    ),
    Case(
        name="prototypes-new-episode",
        family="few-shot",
        build=fit(Episodes, embed, adam),
        steps=250,
        level=0.55,
        why="each step has its own five classes, so the loss leaps from one task to the next",
    ),
    Case(
        name="pupil-of-certain-teacher",
        family="distillation",
        build=fit(TurnedRound, Pupil, rms),
        steps=200,
        level=0.6,
        kinds=("nonfinite",),
        cures={"look at the loss": fit(Taught, Pupil, rms)},
        why="the divergence is taken the wrong way round, and certain teachers have shares of zero",
    ),
)
