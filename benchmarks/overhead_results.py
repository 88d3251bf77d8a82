"""The record of everything that the overhead benchmark found out.

In: figures. Out: the same with names, and the judgement whether they are good enough. Measured in
``overhead.py``, printed and written by ``overhead_page.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from benchmarks.memory import Kept
from benchmarks.models import Subject
from benchmarks.scaling import Growth
from benchmarks.shares import Share
from benchmarks.statistics_pass import StatisticsPass
from benchmarks.watchers import Watcher

__all__ = ["LaneResult", "Results", "SubjectResult", "Target"]

_MOST_RATIO: Final = 8.0
_STRETCH_RATIO: Final = 5.0
"""How much longer than ``_foreach_norm`` the statistics may take."""


@dataclass(frozen=True)
class LaneResult:
    """What one watcher cost on one model.

    Attributes:
        watcher: Which.
        steps: Steps measured.
        own: CPU time in its own hooks over the unwatched step's, step by step.
        own_per_step: The same as a mean, with rare steps as often as in a real run.
        own_mean: The same as a plain mean over whole cycles of 50 steps; NaN with fewer steps.
        collecting_mean: The part of that mean in Python's garbage collector.
        difference: CPU time of its step over the unwatched one's, less one.
        waits: Waits for the device per step, beyond those without it.
        written: Bytes written per step.
    """

    watcher: Watcher
    steps: int
    own: Share
    own_per_step: float
    own_mean: float
    collecting_mean: float
    difference: Share
    waits: float
    written: float


@dataclass(frozen=True)
class SubjectResult:
    """What was found on one model.

    Attributes:
        subject: Which.
        tensors: Number of parameters.
        entries: Numbers in them.
        parameter_bytes: Bytes of them.
        base_ms: Milliseconds of CPU time of the unwatched step.
        lanes: One per watcher.
        statistics: The look at the gradients.
        kept: What the monitor keeps, at some steps; empty without it.
    """

    subject: Subject
    tensors: int
    entries: int
    parameter_bytes: int
    base_ms: Share
    lanes: tuple[LaneResult, ...]
    statistics: StatisticsPass
    kept: tuple[Kept, ...]


@dataclass(frozen=True)
class Target:
    """A figure and what it must be.

    Attributes:
        name: Of the figure.
        figure: What was measured.
        most: What it must not exceed.
        stretch: What we hope for.
        unit: How it is written: ``"%"`` of a step, or ``"x"``.
    """

    name: str
    figure: float
    most: float
    stretch: float
    unit: str

    @property
    def is_met(self) -> bool:
        """Whether the figure is good enough."""
        return self.figure <= self.most

    @property
    def verdict(self) -> str:
        """How good it is, in words."""
        if self.figure <= self.stretch:
            return "met, stretch too"
        return "met" if self.is_met else "**missed**"


@dataclass
class Results:
    """All that was measured.

    Attributes:
        subjects: One per model.
        entries: Growth with the number of entries.
        tensors: Growth with the number of tensors.
        minutes: How long it all took.
    """

    subjects: list[SubjectResult] = field(default_factory=list)
    entries: Growth | None = None
    tensors: Growth | None = None
    minutes: float = 0.0

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every figure that has a limit."""
        return tuple(target for result in self.subjects for target in _targets(result))


def _targets(result: SubjectResult) -> Iterator[Target]:
    subject = result.subject
    for lane in result.lanes:
        if lane.watcher.name == "monitor":
            name = f"{subject.name}: own hooks per step"
            yield Target(name, lane.own_per_step, subject.most, subject.stretch, "%")
    name = f"{subject.name}: statistics over `_foreach_norm`"
    yield Target(name, result.statistics.ratio.middle, _MOST_RATIO, _STRETCH_RATIO, "x")
