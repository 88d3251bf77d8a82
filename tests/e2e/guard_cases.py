"""Models, faults and helpers that the tests of `GradientGuard` share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from lightning_gradguard import GradientGuard
from tests.e2e.models import Classifier, random_data, trainer
from tests.e2e.test_transparency import assert_identical, scaler

ROWS = (64, 6)  # 8 batches an epoch
NONE_WARNING = "ignore:`training_step` returned `None`"


def guard(**options: Any) -> GradientGuard:
    """Return a guard that is silent and hides no fault of its own."""
    return GradientGuard(**{"sinks": [], "on_error": "raise", **options})


# Networks and modules.


def normed() -> nn.Module:
    """Return a network whose buffers every batch changes."""
    first = nn.Linear(6, 8, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def matrices() -> nn.Module:
    """Return a network without vectors, which is all that some optimizers take."""
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False))


class Adversaries(pl.LightningModule):
    """Two halves that are trained in turn, by hand, as in an adversarial pair."""

    automatic_optimization = False
    absent: Collection[int] = ()

    def __init__(self, *, use_pl_optimizer: bool = True) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.use_pl_optimizer = use_pl_optimizer
        self.maker = nn.Sequential(nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh())
        self.critic = nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3))

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        if batch_number(self) in self.absent:
            return
        for optimizer in self.optimizers(use_pl_optimizer=self.use_pl_optimizer):
            loss = nn.functional.cross_entropy(self.critic(self.maker(batch[0])), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.SGD(self.maker.parameters(), lr=0.1, momentum=0.9),
            torch.optim.AdamW(self.critic.parameters(), lr=0.01),
        ]


# What can happen to a batch.


def batch_number(module: pl.LightningModule) -> int:
    """Return which batch of the whole training this is."""
    trainer = module.trainer
    return trainer.current_epoch * trainer.num_training_batches + trainer.fit_loop.batch_idx


def with_step(make: Callable[[], Any], change: Callable[..., Any]) -> Callable[[], Any]:
    """Return a module whose ``training_step`` is wrapped by ``change(module, step, *batch)``."""

    def make_changed() -> Any:
        module = make()
        step = module.training_step
        module.training_step = lambda *batch: change(module, step, *batch)
        return module

    return make_changed


def with_factor(make: Callable[[], Any], numbers: Collection[int], factor: float = float("nan")):
    """Multiply the inputs of these batches."""

    def change(module, step, batch, batch_idx):
        if batch_number(module) in numbers:
            batch = [batch[0] * factor, batch[1]]
        return step(batch, batch_idx)

    return with_step(make, change)


def with_loss_factor(make: Callable[[], Any], numbers: Collection[int], factor: float):
    """Multiply the loss of these batches."""

    def change(module, step, batch, batch_idx):
        loss = step(batch, batch_idx)
        return loss * factor if batch_number(module) in numbers else loss

    return with_step(make, change)


def without(make: Callable[[], Any], numbers: Collection[int]) -> Callable[[], Any]:
    """Return None from ``training_step`` at these batches."""

    def change(module, step, batch, batch_idx):
        return None if batch_number(module) in numbers else step(batch, batch_idx)

    return with_step(make, change)


def batches(*shape: int, lacking: Collection[int] = ()) -> DataLoader[Any]:
    """Return `random_data` without some of its batches."""
    rows = random_data(*shape).dataset
    return DataLoader(Subset(rows, [i for i in range(shape[0]) if i // 8 not in lacking]), 8)


# Runs.


class OnlyScales(MixedPrecision):
    """A gradient scaler without half precision: its factor is a power of two and rounds nothing."""

    def __init__(self):
        super().__init__("16-mixed", device="cpu", scaler=torch.amp.GradScaler("cpu"))

    def forward_context(self):
        return nullcontext()


@dataclass
class Run:
    """A training that is over."""

    trainer: Any
    module: Any

    @property
    def left(self) -> list[Any]:
        """All that it leaves behind but random state."""
        known = getattr(self.trainer.precision_plugin, "scaler", None)
        return [
            self.module.state_dict(),
            [optimizer.state_dict() for optimizer in self.trainer.optimizers],
            [config.scheduler.state_dict() for config in self.trainer.lr_scheduler_configs],
            None if known is None else known.state_dict(),
        ]

    @property
    def weights(self) -> Tensor:
        parameters = [parameter.detach() for parameter in self.module.parameters()]
        real = [torch.view_as_real(p) if p.is_complex() else p for p in parameters]
        return torch.cat([parameter.double().flatten() for parameter in real])


def train(
    make: Callable[[], Any], *callbacks: Any, data: Any = None, scaled: bool = False, **options: Any
) -> Run:
    """Train a new module from the same seed as always."""
    pl.seed_everything(7, verbose=False)
    plugins = {"plugins": [scaler()]} if scaled else {}
    checkpoint = options.pop("ckpt_path", None)
    run = Run(trainer(*callbacks, **{"max_epochs": 1, **plugins, **options}), make())
    run.trainer.fit(run.module, random_data(*ROWS) if data is None else data, ckpt_path=checkpoint)
    return run


def assert_same(one: Run, other: Run) -> None:
    """Assert that two trainings left the same, bit by bit."""
    assert_identical(one.left, other.left)


def classifier(network: Callable[[], nn.Module] = normed, optimizer=torch.optim.SGD, **options):
    return lambda: Classifier(network(), optimizer, **options)


def done(guard: GradientGuard, what: str) -> list[int]:
    """Return the steps at which a guard did something."""
    return [action.step for action in guard.actions if action.what == what]


# Remedies.


class At:
    """Ask for something at given steps."""

    acts_on_findings = True

    def __init__(self, steps: Collection[int], *decisions: Any) -> None:
        self.steps, self.decisions = steps, decisions

    def decide(self, moment):
        return self.decisions if moment.step in self.steps else ()


class From(At):
    """Ask for something from a step on."""

    def decide(self, moment):
        return self.decisions if moment.step >= min(self.steps) else ()
