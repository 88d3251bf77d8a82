"""Autoencoders with codes that are picked: from a book, or by a soft draw."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import Task, fit, perceptron

__all__ = ["CASES"]


class Book(nn.Module):
    """An autoencoder whose code is, in each of four parts, the nearest of sixteen vectors.

    Args:
        straight: Whether gradients pass from the vector that is picked to what it was picked for.
    """

    def __init__(self, *, straight: bool = True) -> None:
        super().__init__()
        self.encoder, self.decoder = perceptron(64, 48, 16), perceptron(16, 48, 64)
        self.book = nn.Parameter(torch.randn(16, 4))
        self.straight = straight

    def forward(self, images: Tensor) -> Tensor:
        """Return restored images."""
        return self.decode(self.encoder(images))[0]

    def pick(self, codes: Tensor) -> Tensor:
        """Return the number of the nearest vector per part."""
        return torch.cdist(codes.view(-1, 4, 4), self.book).argmin(dim=2)

    def decode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return restored images, and what code and book miss to each other."""
        picked = self.book[self.pick(codes)].flatten(1)
        missed = (picked - codes.detach()).square().mean()
        missed = missed + 0.25 * (picked.detach() - codes).square().mean()
        passed = codes + (picked - codes).detach() if self.straight else picked
        return self.decoder(passed), missed


def book_loss(model: Book, images: Tensor, _classes: Tensor) -> Tensor:
    """Return squared errors of the images and of the book."""
    restored, missed = model.decode(model.encoder(images))
    total: Tensor = (restored - images).square().mean() + missed
    return total


def refill(training: Training, step: int, *, least: float) -> None:
    """Set each vector of the book to the mean of what picked it, every forty steps."""
    model = training.model
    if step % 40 != 39 or not isinstance(model, Book):
        return
    with torch.no_grad():
        codes = model.encoder(training.batch(step)[0])
        picked = nn.functional.one_hot(model.pick(codes).flatten(), 16).float()
        means = picked.T @ codes.unflatten(1, (4, 4)).flatten(0, 1)
        model.book.copy_(means / picked.sum(dim=0).clamp(min=least)[:, None])


class Draw(nn.Module):
    """An autoencoder whose code is eight soft draws of one in eight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = perceptron(64, 64, 64), perceptron(64, 64, 64)
        self.temperature = 1.0

    def forward(self, images: Tensor) -> Tensor:
        """Return images restored from soft draws, or from the likeliest ones in evaluation."""
        logits = self.encoder(images).unflatten(1, (8, 8))
        if self.training:
            draws = nn.functional.gumbel_softmax(logits, tau=self.temperature)
        else:
            draws = nn.functional.one_hot(logits.argmax(dim=2), 8).float()
        restored: Tensor = self.decoder(draws.flatten(1))
        return restored


def draw_loss(model: nn.Module, images: Tensor, _classes: Tensor) -> Tensor:
    """Return the mean squared error of restored images."""
    error: Tensor = (model(images) - images).square().mean()
    return error


def cool(training: Training, step: int, *, least: float, half_life: float) -> None:
    """Halve the temperature again and again, down to the least."""
    if isinstance(training.model, Draw):
        training.model.temperature = max(0.5 ** (step / half_life), least)


def restored(model: nn.Module, images: Tensor, _classes: Tensor) -> float:
    """Return the share of the pixels' variance that is restored."""
    return 1.0 - float((model(images) - images).square().mean() / images.var(dim=0).mean())


Restored = Task(split=sources.flat_digits, loss=book_loss, score=restored, size=64)
Drawn = Task(split=sources.flat_digits, loss=draw_loss, score=restored, size=64)
adam = partial(torch.optim.Adam, lr=3e-3)
safe_refill = partial(refill, least=1.0)

CASES: tuple[Case, ...] = (
    Case(
        name="book-of-vectors",
        family="vector-quantised",
        build=fit(Restored, Book, adam),
        steps=400,
        level=0.2,
        why="gradients jump over the picking of a vector, and vectors nobody picks have none",
    ),
    Case(
        name="draws-cooled",
        family="gumbel-softmax",
        build=fit(Drawn, Draw, adam, before=partial(cool, least=0.3, half_life=120.0)),
        steps=400,
        level=0.15,
        why="draws get sharper as the temperature falls, so gradients get larger and noisier",
    ),
    Case(
        name="book-refilled-from-nothing",
        family="vector-quantised",
        build=fit(Restored, Book, adam, before=partial(refill, least=0.0)),
        steps=200,
        level=0.1,
        kinds=("nonfinite",),
        onset=39,
        cures={"look at the loss": fit(Restored, Book, adam, before=safe_refill)},
        why="a vector that nobody picked is set to the mean of nothing, which is NaN",
    ),
    Case(
        name="draws-frozen-cold",
        family="gumbel-softmax",
        build=fit(Drawn, Draw, adam, before=partial(cool, least=1e-6, half_life=3.0)),
        steps=300,
        level=0.35,
        kinds=("vanishing", "not_learning"),
        onset=30,
        cures={
            "schedule": fit(Drawn, Draw, adam, before=partial(cool, least=0.5, half_life=120.0))
        },
        why="the temperature is halved every three steps; draws without softness have no slope",
    ),
)
