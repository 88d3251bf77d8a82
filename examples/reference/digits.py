"""The digits task: seeded loaders of handwritten digits, and a plain image classifier.

In:  a seed (and a folder, for CIFAR-10), or a network.
Out: training and held-out loaders, or a module that trains the network by momentum SGD and logs
     ``train_loss``, ``val_loss`` and ``val_accuracy``.
Never: anything about gradients. This is the code that a user would have written anyway.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import LightningModule
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

Loaders = tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]
Data = Callable[[int], Loaders]

NUM_CLASSES = 10
NUM_TRAINING_DIGITS = 1437  # of 1797: four fifths
BATCH_SIZE = 64
LEARNED = 0.8  # held-out accuracy that a run must reach to count as healthy
STUCK = 0.3  # held-out accuracy that a failing run stays below; guessing gives 0.1


def digits(seed: int) -> Loaders:
    """Return loaders over 1437 training and 360 held-out digits.

    Args:
        seed: Decides the split and the order of the training batches.

    Returns:
        The training and the held-out loader, each giving pairs of images and labels.

    Shape:
        Images ``(batch, 1, 8, 8)``, float32, standardised by the training images' mean and
        standard deviation; labels ``(batch,)``, int64 in ``[0, 9]``.

    Example:
        >>> training, held_out = digits(seed=0)
        >>> len(training), len(held_out.dataset)
        (22, 360)
    """
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8)
    targets = torch.from_numpy(labels).long()
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    inside, outside = shuffled[:NUM_TRAINING_DIGITS], shuffled[NUM_TRAINING_DIGITS:]
    return _loaders((images[inside], targets[inside]), (images[outside], targets[outside]), seed)


def cifar10(folder: str | Path, seed: int) -> Loaders:
    """Return loaders over CIFAR-10: 50,000 training and 10,000 held-out images.

    Args:
        folder: Unpacked "python version" of the data set, with ``data_batch_1`` to ``5`` and
            ``test_batch`` in it. These are pickles, which can run code: use a copy you trust.
        seed: Decides the order of the training batches.

    Returns:
        The training and the held-out loader, each giving pairs of images and labels.

    Shape:
        Images ``(batch, 3, 32, 32)``, float32, standardised by the training images' mean and
        standard deviation; labels ``(batch,)``, int64 in ``[0, 9]``.

    Source:
        https://www.cs.toronto.edu/~kriz/cifar.html
    """
    batches = [_cifar_batch(Path(folder) / f"data_batch_{number}") for number in range(1, 6)]
    images, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return _loaders((images, targets), _cifar_batch(Path(folder) / "test_batch"), seed)


def _cifar_batch(path: Path) -> tuple[Tensor, Tensor]:
    with path.open("rb") as file:
        batch = pickle.load(file, encoding="bytes")  # noqa: S301 - the format of the data set
    images = torch.from_numpy(np.asarray(batch[b"data"])).float().view(-1, 3, 32, 32)
    return images, torch.tensor(batch[b"labels"])


def _loaders(
    training: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], seed: int
) -> Loaders:
    """Standardise both parts by the training part, and wrap them."""
    mean, std = training[0].mean(), training[0].std()
    inside = TensorDataset((training[0] - mean) / std, training[1])
    outside = TensorDataset((held_out[0] - mean) / std, held_out[1])
    # A generator of its own: what the model draws from the global one cannot change the order.
    order = torch.Generator().manual_seed(seed)
    return (
        # A short last batch would give batch normalisation one noisier step per epoch.
        DataLoader(inside, batch_size=BATCH_SIZE, shuffle=True, generator=order, drop_last=True),
        DataLoader(outside, batch_size=512),
    )


class Classifier(LightningModule):
    """Train a network to classify images, by SGD with momentum 0.9.

    Args:
        network: Maps a batch of images to logits of shape ``(batch, NUM_CLASSES)``.
        learning_rate: Step size; ``> 0``, the same for the whole run.
    """

    def __init__(self, network: nn.Module, *, learning_rate: float) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.val_accuracy = MulticlassAccuracy(NUM_CLASSES, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross entropy of a batch, in nats."""
        images, targets = batch
        loss = functional.cross_entropy(self(images), targets)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Log the mean cross entropy and the share of images classified correctly."""
        images, targets = batch
        logits = self(images)
        self.val_accuracy(logits, targets)
        self.log("val_loss", functional.cross_entropy(logits, targets))
        self.log("val_accuracy", self.val_accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD over all parameters."""
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate, momentum=0.9)
