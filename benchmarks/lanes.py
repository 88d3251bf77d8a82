"""Several trainings in one process, one step of each in turn.

In: lanes, each a training with callbacks of its own. Out: what each step of each lane cost. A
noisy machine is slow for all lanes of a round alike, so lanes are compared within a round.

Each lane is a thread that runs `Trainer.fit` as anybody would. A lane has its turn from the start
of one batch to the start of the next, which includes all that Lightning does in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from benchmarks.clock import OwnTime
from benchmarks.models import Batches, Subject, Training

__all__ = ["Lane", "Series", "fit", "run_interleaved"]

Callbacks = Callable[[Path], list[pl.Callback]]


@dataclass(frozen=True)
class Lane:
    """One training among others.

    Attributes:
        name: Of the lane.
        callbacks: Makes its callbacks; told the folder for what they write.
        steps: Steps to measure.
        log_every: Lightning's ``log_every_n_steps``.
    """

    name: str
    callbacks: Callbacks
    steps: int
    log_every: int = 50


@dataclass
class Series:
    """What the steps of a lane cost, one entry per step.

    Attributes:
        own: CPU seconds in the callbacks' own code.
        collecting: Those of them in Python's garbage collector.
        thread: CPU seconds of the training thread.
        process: CPU seconds of the whole process; no other lane runs at that time.
        written: Bytes in the lane's folder after the run.
        callbacks: Those that were watched.
    """

    own: list[float] = field(default_factory=list)
    collecting: list[float] = field(default_factory=list)
    thread: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    written: int = 0
    callbacks: list[pl.Callback] = field(default_factory=list)


class Baton:
    """Who has it may run; the others wait.

    Args:
        names: The order of the turns.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._order = list(names)
        self._turn = 0
        self._changed = threading.Condition()

    def wait(self, name: str) -> None:
        """Return when it is this one's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._order[self._turn] == name)

    def pass_on(self) -> None:
        """Give the turn to the next."""
        with self._changed:
            self._turn = (self._turn + 1) % len(self._order)
            self._changed.notify_all()

    def leave(self, name: str) -> None:
        """Take no more turns; the next one has it."""
        with self._changed:
            self._order.remove(name)
            self._turn = self._turn % len(self._order) if self._order else 0
            self._changed.notify_all()


class Turn(pl.Callback):
    """Take part in turns, and note what a turn cost.

    Args:
        name: Of the lane.
        baton: Shared by all lanes.
        clock: Shared by all lanes.
        series: Where costs are noted.
    """

    def __init__(self, name: str, baton: Baton, clock: OwnTime, series: Series) -> None:
        self._name, self._baton = name, baton
        self.clock, self.series = clock, series
        self._start: tuple[float, float] | None = None

    def on_train_batch_start(self, *_: object) -> None:
        """End the turn of the batch before, and wait for the next one."""
        if self._start is not None:
            self.series.thread.append(time.thread_time() - self._start[0])
            self.series.process.append(time.process_time() - self._start[1])
            own, collecting = self.clock.take()
            self.series.own.append(own)
            self.series.collecting.append(collecting)
        self._baton.pass_on()
        self._baton.wait(self._name)
        self.clock.take()
        self._start = time.thread_time(), time.process_time()


def run_interleaved(subject: Subject, lanes: Sequence[Lane], folder: Path) -> dict[str, Series]:
    """Train all lanes, step by step in turn.

    Args:
        subject: The model.
        lanes: What to compare; those with fewer steps leave earlier.
        folder: Each lane writes below it.

    Raises:
        RuntimeError: A lane failed.
    """
    clock, baton = OwnTime(), Baton(lane.name for lane in lanes)
    results = {lane.name: Series() for lane in lanes}
    failures: dict[str, BaseException] = {}

    def run(lane: Lane) -> None:
        baton.wait(lane.name)
        try:
            turn = Turn(lane.name, baton, clock, results[lane.name])
            _train(subject, lane, turn, folder / subject.name / lane.name)
        except BaseException as error:  # noqa: BLE001 - told below, in the main thread
            failures[lane.name] = error
        finally:
            baton.leave(lane.name)

    with clock.hooks():
        threads = [threading.Thread(target=run, args=(lane,), daemon=True) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name, error in failures.items():
        msg = f"The lane {name!r} of {subject.name!r} failed."
        raise RuntimeError(msg) from error
    return results


def _train(subject: Subject, lane: Lane, turn: Turn, home: Path) -> None:
    # OpenMP keeps the number of threads per calling thread.
    torch.set_num_threads(1)
    turn.series.callbacks = lane.callbacks(home)
    for callback in turn.series.callbacks:
        turn.clock.watch(callback)
    # One more step than is measured: the end of the fit belongs to the last one.
    callbacks = [turn, *turn.series.callbacks]
    fit(subject, callbacks, home, lane.steps + 1, log_every=lane.log_every)
    files = (path for path in home.rglob("*") if path.is_file())
    turn.series.written = sum(path.stat().st_size for path in files)


def fit(
    subject: Subject,
    callbacks: Sequence[pl.Callback],
    home: Path,
    steps: int,
    *,
    log_every: int = 50,
    batch_size: int | None = None,
) -> Training:
    """Train as anybody would, with Lightning's TensorBoard logger, and return the model."""
    torch.manual_seed(0)
    training = Training(subject.network())
    batches = Batches(subject.data, batch_size or subject.batch_size, steps)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=list(callbacks),
        logger=TensorBoardLogger(home, name=None, version=""),
        log_every_n_steps=log_every,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(training, batches)
    return training
