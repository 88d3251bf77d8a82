"""An autoencoder whose codes come from a list, most of which is never used.

In: images of digits. Out: a case with gradients that are copied past a step that has none.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.tasks import explained
from benchmarks.detection.tuning.training import Batch, Task, trained

__all__ = ["CASES"]


class Listed(nn.Module):
    """Four codes per image, one for each quarter, out of a list of 256."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 2, stride=2), nn.ReLU(), nn.Conv2d(32, 8, 2, stride=2)
        )
        self.codes = nn.Embedding(256, 8)
        nn.init.normal_(self.codes.weight, std=0.5)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(8, 32, 2, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 2, stride=2),
        )

    def chosen(self, features: Tensor) -> Tensor:
        """Return the nearest code in each place."""
        rows = features.permute(0, 2, 3, 1)
        distances = torch.cdist(rows.detach().flatten(0, 2), self.codes.weight.detach())
        codes: Tensor = self.codes(distances.argmin(dim=1)).view_as(rows)
        return codes.permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return images made of codes."""
        restored: Tensor = self.decoder(self.chosen(self.encoder(images)))
        return restored

    def loss(self, images: Tensor) -> Tensor:
        """Return the error of pixels, of codes against features, and a quarter the other way."""
        features = self.encoder(images)
        codes = self.chosen(features)
        straight = features + (codes - features).detach()
        error = nn.functional.mse_loss(self.decoder(straight), images)
        follow = nn.functional.mse_loss(codes, features.detach())
        return error + follow + 0.25 * nn.functional.mse_loss(features, codes.detach())


def images() -> Task:
    """Give digits back."""
    inputs, _, held, _ = data.digits()

    def draw(_step: int) -> Batch:
        chosen = inputs[torch.randint(len(inputs), (64,))]
        return chosen, chosen

    return Task(
        draw=draw,
        loss=lambda model, batch: model.loss(batch[0]),  # type: ignore[operator]  # a `Listed`
        score=lambda model: explained(model(held), held),
    )


CASES: tuple[Case, ...] = (
    Case(
        name="codes-from-a-list",
        family="vector-quantised",
        build=partial(trained, images, Listed, partial(torch.optim.Adam, lr=4e-3)),
        steps=300,
        level=0.4,
        why="most rows of the list never have a gradient; the encoder's is copied past a choice",
    ),
)
