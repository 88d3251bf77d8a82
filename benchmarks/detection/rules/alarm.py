"""What a published rule says, and what a set of such rules is.

In: a `Record`. Out: alarms, at most one per step, rule and kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.record import Record

__all__ = ["Alarm", "Kind", "RuleSet", "at", "in_order"]

Kind = Literal[
    "vanishing", "exploding", "nonfinite", "dead", "saturated", "not_learning", "diverging"
]


@dataclass(frozen=True, order=True)
class Alarm:
    """One rule tripped.

    Attributes:
        step: When.
        kind: What it stands for, in the words of the labels.
        rule: As its tool calls it.
    """

    step: int
    kind: Kind
    rule: str


class RuleSet(Protocol):
    """The rules of one tool, with its own thresholds."""

    @property
    def name(self) -> str:
        """Of the tool, and of what is switched on."""
        ...

    def judge(self, record: Record) -> list[Alarm]:
        """Replay a training; alarms come in the order of their steps."""
        ...


def at(steps: NDArray[np.int64], trips: NDArray[Any], kind: Kind, rule: str) -> set[Alarm]:
    """Return one alarm per step at which something trips.

    Args:
        steps: Of each row.
        trips: Booleans, one per row, or one per row and column.
        kind: Of the alarms.
        rule: Of the alarms.
    """
    rows = trips if trips.ndim == 1 else trips.any(axis=1)
    return {Alarm(int(step), kind, rule) for step in steps[rows]}


def in_order(alarms: Iterable[Alarm]) -> list[Alarm]:
    """Sort alarms by step, and drop repetitions."""
    return sorted(set(alarms))
