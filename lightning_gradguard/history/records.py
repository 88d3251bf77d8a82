"""Findings and actions, from the rows that hold them.

In: a look at a file. Out: records that no later attempt made again; actions also in bunches, since
a guard may act at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding
from lightning_gradguard.history.look import MOST_TEXTS, Look
from lightning_gradguard.history.opening import reading
from lightning_gradguard.history.packing import from_json

__all__ = ["Bunch", "actions", "bunches", "findings"]

R = TypeVar("R", Finding, Action)

_MOST_RECORDS: Final = 100_000
_MOST_RECORD: Final = 1 << 20


class Bunch(NamedTuple):
    """Actions of one kind that lie close together.

    Attributes:
        first: The first of them.
        times: How many they are.
        last_step: Step of the last.
    """

    first: Action
    times: int
    last_step: int


def findings(look: Look, since: int = 0) -> Iterator[tuple[int, Finding]]:
    """Yield rows and what was found, oldest first, after a row."""
    return _records(look, "findings", Finding.from_dict, since)


def actions(look: Look, since: int = 0) -> Iterator[tuple[int, Action]]:
    """Yield rows and what a guard did, oldest first, after a row."""
    return _records(look, "actions", Action.from_dict, since)


def _records(
    look: Look, table: str, make: Callable[[dict[str, Any]], R], since: int
) -> Iterator[tuple[int, R]]:
    rows = look.source.rows(
        f"SELECT id, attempt, record FROM {table} WHERE id > ? AND length(record) <= ? "  # noqa: S608 - our own names
        "ORDER BY id DESC LIMIT ?",
        since,
        _MOST_RECORD,
        _MOST_RECORDS,
        most_bytes=MOST_TEXTS,
    )
    with reading(look.source.path):
        for i, attempt, text in reversed(rows):
            record = make(from_json(text))
            if look.counts(int(attempt), record.optimizer_index, record.step):
                yield int(i), record


def bunches(look: Look, most: int) -> list[Bunch]:
    """Return all actions, of each kind in at most so many bunches.

    Cost:
        Only the first of each bunch is read whole.
    """
    rows = look.source.rows(
        "SELECT id, attempt, optimizer, step, what FROM actions ORDER BY id DESC LIMIT ?",
        _MOST_RECORDS,
        most_bytes=MOST_TEXTS,
    )
    kinds: dict[tuple[int, str], list[tuple[int, int]]] = {}
    with reading(look.source.path):
        for i, attempt, optimizer, step, what in reversed(rows):
            if look.counts(int(attempt), int(optimizer), int(step)):
                kinds.setdefault((int(optimizer), str(what)), []).append((int(step), int(i)))
        return [one for acts in kinds.values() for one in _joined(look, sorted(acts), most)]


def _joined(look: Look, acts: list[tuple[int, int]], most: int) -> Iterator[Bunch]:
    steps = np.array([step for step, _ in acts])
    width = max(1.0, (int(steps[-1]) - int(steps[0]) + 1) / most) if len(acts) > most else 0.0
    parts = ((steps - steps[0]) / width).astype(np.int64) if width else np.arange(len(steps))
    starts = np.unique(parts, return_index=True)[1].tolist()
    for start, end in zip(starts, [*starts[1:], len(acts)], strict=True):
        text = "SELECT record FROM actions WHERE id = ? AND length(record) <= ?"
        for (record,) in look.source.rows(text, acts[start][1], _MOST_RECORD):
            first = Action.from_dict(from_json(record))
            yield Bunch(first, end - start, int(steps[end - 1]))
