"""The four models that are watched, and batches of which a step takes some hundred milliseconds.

In: a name. Out: a `Subject`: how to make the model and its batches, and for how many steps it is
measured. Data are random but fixed, and repeat, so that there is something to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks import Gpt, Lstm, many, resnet18

__all__ = ["SUBJECTS", "Batches", "Subject", "Training"]

_DISTINCT_BATCHES: Final = 4


def _images(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, 32, 32), torch.randint(0, 10, (count,))


def _features(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 32), torch.randint(0, 10, (count,))


def _sentences(count: int, words: int, length: int) -> tuple[Tensor, Tensor]:
    text = torch.randint(0, words, (count, length + 1))
    return text[:, :-1], text[:, 1:]


@dataclass(frozen=True)
class Subject:
    """A model to be watched.

    Attributes:
        name: Its name on the command line.
        title: What it is.
        network: Makes it.
        data: Makes a batch of so many samples: inputs and labels.
        batch_size: Samples per batch when time is measured.
        rounds: Steps of each light lane.
        heavy_rounds: Steps of each heavy lane.
        log_every: Steps between two that the monitor writes; fewer than in a real run where
            fifty would take too long.
        most: Share of the step that the monitor must stay under.
        stretch: Share of the step that it should stay under.
    """

    name: str
    title: str
    network: Callable[[], nn.Module]
    data: Callable[[int], tuple[Tensor, Tensor]]
    batch_size: int
    rounds: int
    heavy_rounds: int
    log_every: int
    most: float = 0.05
    stretch: float = 0.035


class Batches:
    """The same few batches, again and again.

    Args:
        data: Makes a batch.
        batch_size: Samples in each.
        steps: How many batches there are.
    """

    def __init__(
        self, data: Callable[[int], tuple[Tensor, Tensor]], batch_size: int, steps: int
    ) -> None:
        self._batches = [data(batch_size) for _ in range(_DISTINCT_BATCHES)]
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self._batches[step % _DISTINCT_BATCHES] for step in range(self._steps))


class Training(pl.LightningModule):
    """A network with a cross entropy and AdamW.

    Args:
        network: Called for the scores, classes last.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> Tensor:
        """Return the loss."""
        inputs, labels = batch
        scores = self.network(inputs)
        return functional.cross_entropy(scores.flatten(0, -2), labels.flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the fused AdamW, the fastest that there is to be slowed down."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)


SUBJECTS: Final = (
    Subject(
        name="resnet18",
        title="ResNet-18 for 32 by 32 images",
        network=resnet18,
        data=_images,
        batch_size=8,
        rounds=28,
        heavy_rounds=8,
        log_every=5,
    ),
    Subject(
        name="gpt",
        title="GPT of 6 layers",
        network=Gpt,
        data=lambda count: _sentences(count, 1000, 128),
        batch_size=8,
        rounds=28,
        heavy_rounds=8,
        log_every=5,
    ),
    Subject(
        name="lstm",
        title="LSTM language model, 2 x 256",
        network=Lstm,
        data=lambda count: _sentences(count, 2000, 32),
        batch_size=32,
        rounds=73,
        heavy_rounds=10,
        log_every=7,
    ),
    Subject(
        name="many",
        title="442 small tensors",
        network=many,
        data=_features,
        batch_size=16,
        rounds=203,
        heavy_rounds=10,
        log_every=50,
        most=0.25,
        stretch=0.15,
    ),
)
