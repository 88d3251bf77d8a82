"""What the monitor keeps in memory.

In: a monitor in a training. Out: bytes of tensors and arrays that it holds and that are not the
training's own, between two steps and between the gradients and the update of one. Its object
graph is walked; short-lived memory inside of a hook is not seen.
"""

from __future__ import annotations

import ctypes
import gc
import io
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from benchmarks.lanes import fit
from benchmarks.models import Subject
from lightning_gradguard import GradientMonitor

__all__ = ["Kept", "kept_by_monitor"]

_FOREIGN: Final = (
    nn.Module,
    nn.Parameter,
    torch.optim.Optimizer,
    pl.Trainer,
    Logger,
    SummaryWriter,
    logging.Logger,
    io.IOBase,
    type,
    ModuleType,
    CodeType,
    FrameType,
)
"""The training's own things, and Python's: the walk ends there."""


@dataclass(frozen=True)
class Kept:
    """What is kept at some step.

    Attributes:
        step: The step.
        between: Bytes of tensors and arrays before the step.
        within: Bytes of tensors and arrays after the monitor has seen the gradients.
        objects: Bytes of all Python objects before the step.
    """

    step: int
    between: int
    within: int
    objects: int


class Walk:
    """Add up what can be reached from an object.

    Args:
        root: Where to start.
        known: Addresses of memory that is not to be counted.

    Attributes:
        numbers: Bytes of tensors and arrays, each memory once.
        objects: Bytes of Python objects.
    """

    def __init__(self, root: object, known: Iterable[int]) -> None:
        self.numbers = self.objects = 0
        self._counted = set(known)
        seen: set[int] = set()
        # Kept alive until the end, so that no id comes again.
        waiting, met = [root], []
        while waiting:
            item = waiting.pop()
            if id(item) in seen or (item is not root and isinstance(item, _FOREIGN)):
                continue
            seen.add(id(item))
            met.append(item)
            waiting.extend(self._visit(item))

    def _visit(self, item: Any) -> Iterable[object]:  # noqa: ANN401 - anything
        self.objects += sys.getsizeof(item)
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            self._count(storage.data_ptr(), storage.nbytes())
            return ()
        if isinstance(item, np.ndarray):
            if item.base is not None:
                return (item.base,)
            self._count(item.ctypes.data, item.nbytes)
            return item.flat if item.dtype == object else ()
        if isinstance(item, ctypes.Array):
            self._count(ctypes.addressof(item), ctypes.sizeof(item))
            return ()
        if isinstance(item, FunctionType):
            # Not its globals, which are everybody's.
            return (item.__closure__, item.__defaults__, item.__kwdefaults__)
        return gc.get_referents(item)

    def _count(self, address: int, size: int) -> None:
        if address not in self._counted:
            self._counted.add(address)
            self.numbers += size


class Weigh(pl.Callback):
    """Weigh a monitor at some steps; to be placed behind it.

    Args:
        monitor: The one.
        steps: When.
    """

    def __init__(self, monitor: pl.Callback, steps: Iterable[int]) -> None:
        self._monitor, self._steps = monitor, frozenset(steps)
        self._between: Walk | None = None
        self.kept: list[Kept] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        """Weigh between two steps."""
        if trainer.global_step in self._steps:
            self._between = Walk(self._monitor, _of_training(trainer, pl_module))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        """Weigh between the gradients and the update."""
        if self._between is not None:
            within = Walk(self._monitor, _of_training(trainer, pl_module))
            sizes = (self._between.numbers, within.numbers, self._between.objects)
            self.kept.append(Kept(trainer.global_step, *sizes))
            self._between = None


def _of_training(trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[int]:
    """Yield the addresses of parameters, gradients, buffers and optimizer state."""
    tensors: list[Any] = [*module.parameters(), *module.buffers()]
    tensors += [parameter.grad for parameter in module.parameters()]
    for optimizer in trainer.optimizers:
        tensors += [value for state in optimizer.state.values() for value in state.values()]
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            yield tensor.untyped_storage().data_ptr()


def kept_by_monitor(subject: Subject, home: Path, steps: tuple[int, ...]) -> list[Kept]:
    """Return what the monitor keeps at some steps of a training with small batches."""
    monitor = GradientMonitor()
    weigh = Weigh(monitor, steps)
    fit(subject, [monitor, weigh], home, max(steps) + 1, batch_size=2)
    return weigh.kept
