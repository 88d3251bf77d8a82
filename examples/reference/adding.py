"""The adding problem, and a network that reads the sum off the last output of a recurrent layer.

In: a seed, or a recurrent layer. Out: loaders, or a ``LightningModule`` that logs ``val_solved``.
Nothing here knows about gradient monitoring; what fails on this task, and why, is the subject of
``recurrent.py``, which also says what the monitor will report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

BATCH_SIZE = 64
SOLVED_BELOW = 0.1  # predicting the mean puts 19 % of the errors below this bound

Loaders = tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]


def adding_sequences(count: int, length: int, generator: torch.Generator) -> TensorDataset:
    """Draw sequences of the adding problem, one mark in each half.

    Args:
        count: Number of sequences.
        length: Time steps per sequence; even.
        generator: Source of all randomness.

    Returns:
        Pairs of a sequence and the sum of its two marked numbers, which lies in ``[0, 2)``.

    Shape:
        Sequences: ``(count, length, 2)``, a number in ``[0, 1)`` and a mark, 0 or 1.
        Sums: ``(count,)``.

    Source:
        Hochreiter and Schmidhuber, "Long short-term memory", 1997, experiment 4; here with
        numbers in ``[0, 1)`` and the plain sum as the target.
    """
    numbers = torch.rand(count, length, generator=generator)
    marks = torch.zeros(count, length)
    half = length // 2
    for first_step in (0, half):
        position = first_step + torch.randint(half, (count, 1), generator=generator)
        marks.scatter_(1, position, 1.0)
    return TensorDataset(torch.stack([numbers, marks], dim=2), (numbers * marks).sum(dim=1))


def adding_data(seed: int, *, batches: int, length: int) -> Loaders:
    """Return ``batches`` training batches and 2000 held-out sequences.

    With as many batches as steps every sequence is new, and nothing can be learned by heart.
    """
    generator = torch.Generator().manual_seed(seed)
    training = adding_sequences(batches * BATCH_SIZE, length, generator)
    held_out = adding_sequences(2000, length, generator)
    return DataLoader(training, batch_size=BATCH_SIZE), DataLoader(held_out, batch_size=500)


class Adder(LightningModule):
    """A recurrent layer whose last output is read as the sum.

    Logs ``train_loss`` and ``val_solved``, the share of errors below 0.1.

    Args:
        core: Recurrent layer, ``batch_first``, with two input features.
        optimizer: Builds the optimizer from the parameters.
    """

    def __init__(
        self,
        core: nn.RNNBase,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        super().__init__()
        self.core = core
        self.head = nn.Linear(core.hidden_size, 1)
        self.build_optimizer = optimizer
        self.solved = MeanMetric()

    def forward(self, sequences: Tensor) -> Tensor:
        """Return one predicted sum per sequence, shape ``(batch,)``."""
        outputs, _ = self.core(sequences)
        prediction: Tensor = self.head(outputs[:, -1])
        return prediction.squeeze(1)

    def training_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> Tensor:
        """Return the mean squared error; predicting the mean gives 1/6."""
        sequences, sums = batch
        loss = nn.functional.mse_loss(self(sequences), sums)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> None:
        """Count the errors below the bound."""
        sequences, sums = batch
        self.solved.update((self(sequences) - sums).abs() < SOLVED_BELOW)
        self.log("val_solved", self.solved)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer that was asked for."""
        return self.build_optimizer(self.parameters())
