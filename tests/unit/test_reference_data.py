"""The data of the reference models: offline, repeatable, and CIFAR-10 from a folder."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from examples import demo
from examples.reference.digits import cifar10, digits
from examples.reference.resnet import runs
from tests.e2e.models import trainer


@pytest.fixture
def folder(tmp_path):
    """Return CIFAR-10's layout with sixteen images a batch."""
    generator = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        batch = {
            b"data": generator.integers(0, 256, (16, 3072), dtype=np.uint8),
            b"labels": generator.integers(0, 10, 16).tolist(),
        }
        (tmp_path / name).write_bytes(pickle.dumps(batch))
    return tmp_path


def test_cifar10_is_read_from_its_folder(folder) -> None:
    training, held_out = cifar10(folder, seed=0)
    images, labels = training.dataset.tensors
    assert images.shape == (80, 3, 32, 32)
    assert labels.dtype == torch.int64
    assert len(held_out.dataset) == 16
    # Standardised by the training images.
    assert images.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert images.std().item() == pytest.approx(1.0, abs=1e-3)


def test_a_residual_network_trains_on_cifar10(folder) -> None:
    run = runs(partial(cifar10, folder), channels=3)[0]
    pl.seed_everything(0, verbose=False)
    fit = trainer(max_steps=1, max_epochs=-1, limit_val_batches=0)
    with pytest.warns(UserWarning, match="You defined a `validation_step`"):
        fit.fit(run.model(), run.data(0)[0])
    assert fit.global_step == 1


def test_the_digits_are_the_ones_of_scikit_learn_and_split_once() -> None:
    training, held_out = digits(0)
    assert (len(training.dataset), len(held_out.dataset)) == (1437, 360)


@pytest.mark.parametrize("run", demo.RUNS, ids=lambda run: run.name)
def test_the_same_seed_gives_the_same_batches(run) -> None:
    first, second = (next(iter(run.data(3)[0])) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
