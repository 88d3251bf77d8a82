"""A character LSTM on real text: the healthy recurrent run that people recognise.

In: the sources of Python's standard library, read from the interpreter that runs this; nothing is
downloaded. Out: ``CharacterModel`` and ``character_data``, which ``recurrent.py`` puts into the
reference table.

**What fails.** Nothing: an embedding, an LSTM and a linear layer learn to name the next character.
**What the monitor will say.** Nothing above ``INFO``. There is a loss at every time step, so every
time step has a short way to it, and the loss falls from the first steps on.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

TRAINING_MODULES = (
    "argparse",
    "ast",
    "configparser",
    "difflib",
    "inspect",
    "optparse",
    "tarfile",
    "zipfile",
)
HELD_OUT_MODULES = ("calendar", "shutil", "textwrap")
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
UNKNOWN = len(ALPHABET)  # everything outside printable ASCII
LENGTH = 64
BATCH_SIZE = 32

Loader = DataLoader[tuple[Tensor, ...]]


def encode(text: str) -> Tensor:
    """Return the alphabet index of every character.

    Example:
        >>> encode("a b")
        tensor([66,  1, 67])
    """
    index = {character: position for position, character in enumerate(ALPHABET)}
    return torch.tensor([index.get(character, UNKNOWN) for character in text])


def read_modules(names: tuple[str, ...]) -> str:
    """Return the sources of standard-library modules, joined in the given order."""
    folder = Path(sysconfig.get_path("stdlib"))
    return "\n".join((folder / f"{name}.py").read_text(encoding="utf-8") for name in names)


def windows(text: str) -> TensorDataset:
    """Cut a text into inputs and what follows each character, both ``(windows, LENGTH)``."""
    codes = encode(text)
    count = (len(codes) - 1) // LENGTH
    inputs = codes[: count * LENGTH].reshape(count, LENGTH)
    following = codes[1 : count * LENGTH + 1].reshape(count, LENGTH)
    return TensorDataset(inputs, following)


def character_data(seed: int) -> tuple[Loader, Loader]:
    """Return training windows in an order drawn from ``seed``, and windows of held-out modules."""
    order = torch.Generator().manual_seed(seed)
    training = windows(read_modules(TRAINING_MODULES))
    held_out = windows(read_modules(HELD_OUT_MODULES))
    return (
        DataLoader(training, batch_size=BATCH_SIZE, shuffle=True, drop_last=True, generator=order),
        DataLoader(held_out, batch_size=256),
    )


def frequency_baseline(held_out: Loader) -> float:
    """Return the accuracy, in ``[0, 1]``, of always naming the most frequent character."""
    following = torch.cat([targets.flatten() for _, targets in held_out])
    return float(following.bincount().max()) / len(following)


class CharacterModel(LightningModule):
    """Embedding, LSTM, linear layer; trained with Adam on the next character.

    Logs ``train_loss`` and ``val_accuracy``, the share of held-out characters named correctly.

    Args:
        hidden_size: Units of the LSTM.
        learning_rate: Step size of Adam.
    """

    def __init__(self, hidden_size: int = 128, learning_rate: float = 5e-3) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.embedding = nn.Embedding(len(ALPHABET) + 1, 32)
        self.core = nn.LSTM(32, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, len(ALPHABET) + 1)
        self.accuracy = MulticlassAccuracy(num_classes=len(ALPHABET) + 1, average="micro")

    def forward(self, characters: Tensor) -> Tensor:
        """Return logits of shape ``(batch, character, time)``, as the cross-entropy wants them."""
        outputs, _ = self.core(self.embedding(characters))
        logits: Tensor = self.head(outputs)
        return logits.transpose(1, 2)

    def training_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> Tensor:
        """Return the cross-entropy in nats per character."""
        characters, following = batch
        loss = nn.functional.cross_entropy(self(characters), following)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> None:
        """Count the characters named correctly."""
        characters, following = batch
        self.accuracy.update(self(characters), following)
        self.log("val_accuracy", self.accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over all parameters."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)
