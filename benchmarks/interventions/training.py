"""One training, as anybody would run it with Lightning.

In: a case, a seed, and a treatment or a cure by hand. Out: `Outcome`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.interventions.case import UNCHANGED, Batch, Case, Hand
from lightning_gradguard import GradientGuard
from lightning_gradguard.errors import TrainingStoppedError

__all__ = ["Outcome", "train"]


@dataclass(frozen=True)
class Outcome:
    """What came of one training.

    Attributes:
        score: Held-out score at the end; that of chance if it is worse or not finite.
        acts: What the guard did, one sentence each.
    """

    score: float
    acts: tuple[str, ...] = ()


def train(case: Case, seed: int, treatment: Mapping[str, Any], hand: Hand = UNCHANGED) -> Outcome:
    """Train once.

    Args:
        case: What to train.
        seed: Decides weights and batches; the trouble is the same for all seeds.
        treatment: Arguments of `GradientGuard`; empty for none.
        hand: What a person changes.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    module = _Module(case, hand)
    guard = GradientGuard(**treatment, sinks=[], on_error="raise") if treatment else None
    stopped = _fit(module, guard, _Batches(case, seed, is_clean=hand.is_clean), hand)
    acts = tuple(guard.summary().acts) if guard else ()
    return Outcome(_score(module), acts + stopped)


def _fit(
    module: _Module, guard: GradientGuard | None, batches: _Batches, hand: Hand
) -> tuple[str, ...]:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[] if guard is None else [guard],
        gradient_clip_val=hand.max_norm,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the number of workers
        try:
            trainer.fit(module, DataLoader(batches, batch_size=None))
        except TrainingStoppedError as error:
            return (str(error),)
    return ()


class _Batches(IterableDataset[Batch]):
    """One pass of all steps; trouble and all, unless it was taken out."""

    def __init__(self, case: Case, seed: int, *, is_clean: bool) -> None:
        self._case, self._seed, self._is_clean = case, seed, is_clean

    def __iter__(self) -> Iterator[Batch]:
        random = torch.Generator().manual_seed(self._seed)
        draw = self._case.task().draw
        for step in range(self._case.steps):
            batch = draw(random)
            yield batch if self._is_clean else self._case.spoil(step, batch)


class _Module(LightningModule):
    def __init__(self, case: Case, hand: Hand) -> None:
        super().__init__()
        self.case, self.hand = case, hand
        self.task, self.model = case.task(), case.model()

    def training_step(self, batch: Batch) -> Tensor:
        """Return the loss."""
        return self.task.loss(self.model, batch)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimizer, and the schedule that goes by steps."""
        case, hand = self.case, self.hand
        optimizer = case.optimizer(self.model.parameters(), lr=case.rate * hand.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _factor(self, step: int) -> float:
        rising = self.hand.warmup * self.case.steps
        warmed = min(1.0, (step + 1) / rising) if rising else 1.0
        bump = 1.0 if self.hand.is_clean else self.case.bump(step)
        return self.case.schedule(step) * warmed * bump


def _score(module: _Module) -> float:
    module.eval()
    with torch.no_grad():
        score = module.task.score(module.model)
    return max(score, module.task.chance) if math.isfinite(score) else module.task.chance
