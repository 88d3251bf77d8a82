"""Convolutional autoencoders, plain and variational."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.once_held_out.images import mirror
from benchmarks.detection.tuning.once_held_out.layers import Apply
from benchmarks.detection.tuning.once_held_out.parts import (
    Batch,
    at,
    batches,
    changed,
    explained,
    fit,
    loss_times,
    squared_error,
)

__all__ = ["CASES", "decoder"]


def encoder(width: int, code: int) -> nn.Sequential:
    """Return two strided convolutions and a code."""
    return nn.Sequential(
        nn.Conv2d(1, width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * width, code),
    )


def decoder(code: int, width: int) -> nn.Sequential:
    """Return the way back from a code to an image."""
    return nn.Sequential(
        nn.Linear(code, 8 * width),
        nn.Unflatten(1, (2 * width, 2, 2)),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
    )


def autoencoder(code: int = 16, *, cut: bool = False) -> nn.Sequential:
    """Return encoder and decoder; a cut lets no gradient through between them."""
    between = Apply(torch.detach) if cut else nn.Identity()
    return nn.Sequential(encoder(12, code), between, decoder(code, 12))


class Variational(nn.Module):
    """An autoencoder whose code is drawn from a normal distribution.

    Args:
        kl_weight: Price of a code that tells much, per nat.
        kl_steps: Steps until the price is reached, in equal parts.
        bounded: Whether log-variances are kept below 0.
    """

    def __init__(
        self, kl_weight: float = 1.0, kl_steps: int = 120, *, bounded: bool = False
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder(12, 16), decoder(8, 12)
        self.kl_weight, self.kl_steps, self.seen = kl_weight, kl_steps, 0
        self.highest = 0.0 if bounded else math.inf

    def forward(self, images: Tensor) -> Tensor:
        """Return images from the most likely codes."""
        restored: Tensor = self.decoder(self.encoder(images)[:, :8])
        return restored

    def loss(self, images: Tensor) -> Tensor:
        """Return the sum over pixels of squared errors and the weighted divergence, per image."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        log_variance = log_variance.clamp(max=self.highest)
        codes = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        errors = (self.decoder(codes) - images).square().sum()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum()
        self.seen += 1
        price = self.kl_weight * min(self.seen / self.kl_steps, 1.0)
        total: Tensor = (errors + price * divergence) / len(images)
        return total


def evidence(model: nn.Module, inputs: Tensor, _targets: Tensor) -> Tensor:
    """Return the loss of a variational autoencoder."""
    loss: Tensor = model.loss(inputs)  # type: ignore[operator]  # a `Variational`
    return loss


def wide_codes(training: Training) -> None:
    """Raise the log-variances by two hundred, as a mistaken restore of that layer would."""
    bias = training.model.get_parameter("encoder.5.bias")
    with torch.no_grad():
        bias[8:] += 200.0


def floodlight(step: int, batch: Batch) -> Batch:
    """Make the inputs of one batch ten thousand times as bright."""
    return (1e4 * batch[0], batch[1]) if step == 90 else batch


def absolute_error(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean absolute error."""
    return nn.functional.l1_loss(model(inputs), targets)


adam = partial(torch.optim.Adam, lr=4e-3)
sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
regress = partial(fit, criterion=squared_error, score=explained)
encode = partial(fit, criterion=evidence, score=explained)
sharp = partial(fit, criterion=absolute_error, score=explained)

CASES: tuple[Case, ...] = (
    Case(
        name="autoencoder-summed-loss",
        family="conv-autoencoder",
        build=regress(
            autoencoder, partial(torch.optim.Adadelta, lr=1.0), mirror, loss_times(32.0 * 64.0)
        ),
        steps=300,
        level=0.35,
        why="the loss is a sum over pixels and images, in the thousands",
    ),
    Case(
        name="vae-kl-warmup",
        family="conv-vae",
        build=encode(Variational, adam, mirror),
        steps=240,
        level=0.35,
        why="the price of the code rises for half of the run, so the loss goes up and down",
    ),
    Case(
        name="autoencoder-cut-code",
        family="conv-autoencoder",
        build=regress(partial(autoencoder, 2, cut=True), adam, mirror),
        steps=240,
        level=0.6,
        kinds=("not_learning", "vanishing"),
        cures={"backward pass": regress(partial(autoencoder, 2), adam, mirror)},
        why="a detach keeps the gradient from the encoder, whose code stays as random as at first",
    ),
    Case(
        name="vae-wide-codes",
        family="conv-vae",
        build=encode(Variational, adam, mirror, at(100, wide_codes)),
        steps=200,
        level=0.2,
        kinds=("nonfinite",),
        onset=100,
        cures={
            "look at the loss": encode(
                partial(Variational, bounded=True), adam, mirror, at(100, wide_codes)
            )
        },
        why="the exponential of a log-variance overflows inside the loss",
    ),
    Case(
        name="autoencoder-floodlight",
        family="conv-autoencoder",
        build=sharp(autoencoder, sgd, mirror, batches(floodlight)),
        steps=220,
        level=0.25,
        kinds=("exploding", "nonfinite", "diverging", "dead"),
        onset=90,
        cures={
            "clip by norm": sharp(
                autoencoder, sgd, mirror, batches(floodlight), changed(clip_norm=1.0)
            ),
            "look at the data": sharp(autoencoder, sgd, mirror),
        },
        why="one batch ten thousand times too bright throws all weights far off",
    ),
)
