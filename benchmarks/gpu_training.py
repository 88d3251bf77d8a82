"""A language model of 124 M parameters, trained by Lightning with and without the monitor.

In: a device and sizes. Out: what a step takes.
The device is timed with its own events. Trainings run in turn, some steps at a time: a device
works off what Python has prepared for several steps, so single steps would not be what they are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from benchmarks.clock import OwnTime
from benchmarks.lanes import Baton
from benchmarks.models import Batches, Training
from benchmarks.networks import Block
from lightning_gradguard import GradientMonitor

__all__ = ["LANES", "WARM_UP", "Gpt2", "Size", "Turns", "fit", "interleaved", "monitors_of"]

LANES: Final = ("base", "base2", "monitor")
WARM_UP: Final = 10
"""Steps before anything is counted: compilers, allocators and the monitor's first look."""


@dataclass(frozen=True)
class Size:
    """How large the training is.

    Attributes:
        words: Of the vocabulary.
        width: Of a layer.
        layers: Number of blocks.
        length: Words per sentence.
        batch_size: Sentences per batch.
        turns: How often each training has its turn.
        steps: Steps per turn.
    """

    words: int = 50304
    width: int = 768
    layers: int = 12
    length: int = 1024
    batch_size: int = 8
    turns: int = 21
    steps: int = 10


class Gpt2(nn.Module):
    """GPT-2's shape: words shared with the output layer; 124 M parameters as `Size` has it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.words = nn.Embedding(size.words, size.width)
        self.places = nn.Embedding(size.length, size.width)
        heads = max(1, size.width // 64)
        self.blocks = nn.Sequential(*(Block(size.width, heads) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width)
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of the next word, ``(batch, time, words)``."""
        places = torch.arange(x.shape[1], device=x.device)
        hidden = self.norm(self.blocks(self.words(x) + self.places(places)))
        return nn.functional.linear(hidden, self.words.weight)


def _sentences(size: Size, device: torch.device, count: int) -> tuple[Tensor, Tensor]:
    """Return random words and the words after them, where the model is."""
    text = torch.randint(0, size.words, (count, size.length + 1), device=device)
    return text[:, :-1], text[:, 1:]


Mark: TypeAlias = Any
"""A moment: an event of CUDA, or seconds."""


def _mark(device: torch.device) -> Mark:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own gap
    event.record()
    return event


def _milliseconds(start: Mark, end: Mark) -> float:
    if isinstance(start, float):
        return 1e3 * (float(end) - start)
    end.synchronize()
    return float(start.elapsed_time(end))


@dataclass
class Turns:
    """What a lane's turns took, warm-up left out.

    Attributes:
        step_ms: Milliseconds of the device per step, one per turn.
        host_ms: Milliseconds of CPU time in the monitor's own hooks per step, one per turn.
    """

    step_ms: list[float] = field(default_factory=list)
    host_ms: list[float] = field(default_factory=list)


class Turn(pl.Callback):
    """Take part in turns of several steps, and note what they took."""

    def __init__(
        self, name: str, baton: Baton, clock: OwnTime, size: Size, device: torch.device
    ) -> None:
        self._name, self._baton, self._clock = name, baton, clock
        self._size, self._device = size, device
        self._start: Mark = None
        self.turns = Turns()

    def on_train_batch_start(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, _batch: object, batch_idx: int
    ) -> None:
        """End a turn where one ends, and wait for the next."""
        if batch_idx % self._size.steps:
            return
        if self._start is not None:
            elapsed = _milliseconds(self._start, _mark(self._device))
            if batch_idx > WARM_UP:
                self.turns.step_ms.append(elapsed / self._size.steps)
                self.turns.host_ms.append(1e3 * self._clock.take()[0] / self._size.steps)
        self._baton.pass_on()
        self._baton.wait(self._name)
        self._clock.take()
        self._start = _mark(self._device)


def interleaved(size: Size, device: torch.device) -> dict[str, Turns]:
    """Train without, again without, and with the monitor, in turn.

    Raises:
        RuntimeError: One of them failed.
    """
    clock, baton = OwnTime(), Baton(LANES)
    turns = {name: Turn(name, baton, clock, size, device) for name in LANES}
    failures: list[BaseException] = []
    # The first turns are warm-up, and the end of the fit belongs to the last step.
    steps = WARM_UP + size.turns * size.steps + 1

    def run(name: str) -> None:
        baton.wait(name)
        try:
            monitors = monitors_of(name)
            for monitor in monitors:
                clock.watch(monitor)
            fit(size, device, steps, [turns[name], *monitors])
        except BaseException as error:  # noqa: BLE001 - told below, in the main thread
            failures.append(error)
        finally:
            baton.leave(name)

    with clock.hooks():
        threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in LANES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        msg = "A training failed."
        raise RuntimeError(msg) from failures[0]
    return {name: turn.turns for name, turn in turns.items()}


def monitors_of(lane: str) -> list[pl.Callback]:
    """Return the monitor of the lane that has one."""
    # What loggers and a terminal take is no work of the device and is measured elsewhere.
    return [GradientMonitor(sinks=[], on_error="raise")] if lane == "monitor" else []


def fit(size: Size, device: torch.device, steps: int, callbacks: Sequence[pl.Callback]) -> None:
    """Train as anybody would."""
    torch.manual_seed(0)
    training = Training(Gpt2(size))
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision="bf16-mixed",
        max_epochs=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(training, Batches(partial(_sentences, size, device), size.batch_size, steps))
