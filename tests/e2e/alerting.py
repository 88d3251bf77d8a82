"""Trainings that have something to tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from tests.e2e.models import Classifier, mlp, random_data

SECRET = "xyzSECRETxyz"  # noqa: S105 - of a test


def with_nan(step: int, steps: int = 200) -> DataLoader[Any]:
    """Return data of which one batch holds a NaN."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8 * steps, 6, generator=generator)
    labels = (inputs[:, 0] > 0).long()
    inputs[8 * step + 3] = float("nan")
    return DataLoader(TensorDataset(inputs, labels), batch_size=8)


def fit(
    folder: Path,
    callbacks: pl.Callback | Sequence[pl.Callback],
    model: pl.LightningModule | None = None,
    data: Any = None,
    **options: Any,
) -> pl.Trainer:
    """Train for an epoch."""
    logger = options.pop("logger", None) or CSVLogger(folder)
    more = {"max_epochs": 1, "enable_progress_bar": False, "enable_model_summary": False}
    named = [callbacks] if isinstance(callbacks, pl.Callback) else list(callbacks)
    trainer = pl.Trainer(accelerator="cpu", logger=logger, callbacks=named, **more, **options)
    trainer.fit(model or Classifier(mlp()), data or random_data(64, 6))
    return trainer
