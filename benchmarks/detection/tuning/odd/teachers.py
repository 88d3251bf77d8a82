"""Parts that are only looked through: a teacher that trails behind, and features of old.

In: images of digits. Out: cases in which a part of the model is called without gradients, and
nothing says so but the calls.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import digits
from benchmarks.detection.tuning.training import trained

__all__ = ["CASES"]


class Looked(nn.Module):
    """A linear layer on features that are made without gradients and yet not frozen."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        self.encoder = nn.Sequential(*layers)
        self.probe = nn.Linear(768, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        with torch.no_grad():
            features = self.encoder(images)
        logits: Tensor = self.probe(features)
        return logits


class Pupil(nn.Module):
    """An encoder that foretells what its teacher, the trailing mean of it, makes of an image."""

    def __init__(self) -> None:
        super().__init__()
        net = perceptron(1, units=128, outputs=32, norm=True)
        self.encoder = nn.Sequential(net, nn.BatchNorm1d(32, affine=False))
        self.teacher = deepcopy(self.encoder)
        layers = [nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32)]
        self.foretell = nn.Sequential(*layers)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return two less twice the mean cosine with what the teacher sees in the other view."""
        with torch.no_grad():
            taught = self.teacher(other)
        foretold = self.foretell(self.encoder(one))
        return 2.0 - 2.0 * nn.functional.cosine_similarity(foretold, taught).mean()

    @torch.no_grad()
    def trail(self, decay: float = 0.97) -> None:
        """Let the teacher follow."""
        pairs = zip(self.teacher.parameters(), self.encoder.parameters(), strict=True)
        for behind, ahead in pairs:
            behind.lerp_(ahead, 1.0 - decay)


def view(images: Tensor) -> Tensor:
    """Return images without half of their pixels, and noisy."""
    return images * (torch.rand_like(images) < 0.5) + 0.3 * torch.randn_like(images)


def neighbours(model: Pupil) -> float:
    """Return how often the whole image that is nearest to a view of another has its class."""
    inputs, targets, held_inputs, held_targets = data.digits()
    known, asked = (
        nn.functional.normalize(model.encoder(images)) for images in (inputs, view(held_inputs))
    )
    nearest = (asked @ known.T).argmax(dim=1)
    return float((targets[nearest] == held_targets).float().mean())


def two_views() -> Training:
    """Return the training of a pupil; the teacher is in the optimizer with everything else."""
    images, *_ = data.digits()
    model = Pupil()

    def batch(_step: int) -> tuple[Tensor, Tensor]:
        chosen = images[torch.randint(len(images), (128,))]
        return view(chosen), view(chosen)

    return Training(
        model=model,
        optimizers=[torch.optim.Adam(model.parameters(), lr=2e-3)],
        batch=batch,
        loss=lambda views, _index: 0.5 * (model(*views) + model(*views[::-1])),
        score=lambda: neighbours(model),
        before_step=lambda _step: model.trail(),
    )


CASES: tuple[Case, ...] = (
    Case(
        name="probe-on-random-features",
        family="linear-probe",
        build=partial(trained, digits, Looked, partial(torch.optim.Adam, lr=2e-3)),
        steps=200,
        level=0.85,
        why="the encoder is in the optimizer and never has a gradient, as is meant",
    ),
    Case(
        name="trailing-teacher",
        family="self-distillation",
        build=two_views,
        steps=200,
        level=0.6,
        why="half of the encoders have no gradient and move by averaging alone",
    ),
)
