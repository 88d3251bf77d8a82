"""Record labelled trainings once, so that judging them again takes seconds.

In: which trainings. Out: one file per training and seed, in a folder of the user's choice. The
files are this program's own and are read by nothing else, hence pickles.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.detection.case import Case
from benchmarks.detection.loop import Tape, train
from benchmarks.detection.population import member
from benchmarks.detection.prove import cases_of
from benchmarks.detection.signals import Signals

__all__ = ["Job", "load", "record"]


@dataclass(frozen=True, order=True)
class Job:
    """One training to record.

    Attributes:
        group: ``"tuning"``, ``"held_out"`` or ``"population"``.
        name: Of the case; of a member of the population, its number.
        seed: Decides everything random.
        cure: With which cure; empty for none.
        for_rules: Whether to record what the published rules need, instead of frames.
    """

    group: str
    name: str
    seed: int = 0
    cure: str = ""
    for_rules: bool = False

    @property
    def case(self) -> Case:
        """What is trained."""
        if self.group == "population":
            return member(int(self.name))
        return next(case for case in cases_of(self.group) if case.name == self.name)

    @property
    def cured_case(self) -> Case:
        """The same as a healthy case, which it is if the cure cures."""
        return replace(self.case, kinds=(), onset=0)

    def path(self, folder: Path) -> Path:
        """Return where its tape lies."""
        cure = f"-{self.cure.replace(' ', '_')}" if self.cure else ""
        rules = "-rules" if self.for_rules else ""
        return folder / self.group / f"{self.name}-{self.seed}{cure}{rules}.pickle"


def record(jobs: Sequence[Job], folder: Path, *, processes: int = 2) -> Iterator[tuple[Job, Tape]]:
    """Train what has no tape yet, and yield all tapes as they come.

    Args:
        jobs: What to record.
        folder: Where tapes are kept.
        processes: How many train at a time, one thread each.
    """
    missing = [job for job in jobs if not job.path(folder).exists()]
    yield from ((job, load(job, folder)) for job in jobs if job not in missing)
    if not missing:
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(_record, job, folder): job for job in missing}
        for future in as_completed(waiting):
            future.result()
            yield waiting[future], load(waiting[future], folder)


def load(job: Job, folder: Path) -> Tape:
    """Read a tape."""
    with job.path(folder).open("rb") as file:
        tape: Tape = pickle.load(file)  # noqa: S301 - written by `_record` below
    return tape


def _record(job: Job, folder: Path) -> None:
    torch.set_flush_denormal(True)  # saturated runs are several times slower without
    case = job.case
    build = case.cures[job.cure] if job.cure else case.build  # type: ignore[index]  # its own key
    tape = train(build, case.steps, job.seed, watcher=Signals if job.for_rules else None)
    path = job.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        pickle.dump(tape, file)
    unfinished.rename(path)
