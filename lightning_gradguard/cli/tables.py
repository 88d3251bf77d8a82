"""A run as tables, which other programs read.

In: a run. Out: columns, and the rows in blocks that fit into memory. What was not measured is NaN
or None. Which file becomes of it is the affair of `csv_file` and `parquet_file`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from lightning_gradguard import schema
from lightning_gradguard.cli.outcome import CommandError

if TYPE_CHECKING:
    from lightning_gradguard.history import Run

__all__ = ["TABLES", "Block", "Kind", "Table", "make_table"]

Kind: TypeAlias = Literal["int", "float32", "float64", "bool", "text"]
Block: TypeAlias = Mapping[str, Sequence[Any] | npt.NDArray[Any]]

_ROWS_PER_BLOCK: Final = 100_000
_MOST_NAMED: Final = 3

_FINDINGS: Final[Mapping[str, Kind]] = {
    "optimizer_index": "int",
    "step": "int",
    "since_step": "int",
    "epoch": "int",
    "episode_id": "int",
    "state": "text",
    "severity": "text",
    "kind": "text",
    "rule": "text",
    "layers": "text",
    "value": "float64",
    "limit": "float64",
    "unit": "text",
    "rank": "int",
    "message": "text",
    "advice": "text",
}
_ACTIONS: Final[Mapping[str, Kind]] = {
    "optimizer_index": "int",
    "step": "int",
    "epoch": "int",
    "what": "text",
    "why": "text",
    "dry_run": "bool",
    "numbers": "text",
}
_BINS: Final = (
    "zero",
    "bfloat16_underflow",
    "underflow",
    *(f"2^{octave}" for octave in range(schema.HISTOGRAM_LOW, schema.HISTOGRAM_HIGH)),
    "overflow",
    "bfloat16_overflow",
    "nonfinite",
)
"""What the columns of a histogram count, see `schema`."""


@dataclass(frozen=True)
class Table:
    """Named columns, and rows in blocks.

    Attributes:
        columns: What each column holds.
        blocks: Values by column, all of one length; can be walked once.
    """

    columns: Mapping[str, Kind]
    blocks: Iterator[Block]


@dataclass(frozen=True, kw_only=True)
class _Selection:
    """What of a run is asked for; empty is everything."""

    layers: Sequence[str] = ()
    statistics: Sequence[str] = field(default_factory=tuple)


def make_table(
    name: str, run: Run, *, layers: Sequence[str] = (), statistics: Sequence[str] = ()
) -> Table:
    """Return one table of a run.

    Args:
        name: One of `TABLES`.
        run: The run.
        layers: Globs of layers to take; empty takes all.
        statistics: Statistics or scalars to take; empty takes all.

    Raises:
        CommandError: A glob matches no layer, there is no such statistic, or the table has none.

    Cost:
        For ``"layers"``, all that is asked for is in memory at once: 4 bytes per step, layer and
        statistic. The other tables are smaller.
    """
    if layers and name not in {"layers", "histograms"}:
        msg = f"`--layers` chooses rows of the tables layers and histograms, not of {name}."
        raise CommandError(msg)
    if statistics and name not in {"layers", "steps"}:
        msg = f"`--statistics` chooses columns of the tables layers and steps, not of {name}."
        raise CommandError(msg)
    return _MAKERS[name](run, _Selection(layers=layers, statistics=statistics))


def _layers(run: Run, selection: _Selection) -> Table:
    statistics = _chosen("statistic", selection.statistics, run.statistics)
    columns: dict[str, Kind] = {"optimizer_index": "int", "step": "int", "layer": "text"}
    columns |= dict.fromkeys(statistics, "float32")
    places = _places(run, selection.layers)

    def blocks() -> Iterator[Block]:
        for index, chosen in places.items():
            names = [run.layers(index)[place] for place in chosen]
            steps = run.steps(index)
            values = {s: run.statistic(s, index)[:, chosen] for s in statistics}
            length = max(1, _ROWS_PER_BLOCK // max(1, len(names)))
            for start in range(0, len(steps), length):
                part = slice(start, start + length)
                count = len(steps[part])
                yield {
                    "optimizer_index": np.full(count * len(names), index),
                    "step": np.repeat(steps[part], len(names)),
                    "layer": names * count,
                    **{s: matrix[part].reshape(-1) for s, matrix in values.items()},
                }

    return Table(columns, blocks())


def _steps(run: Run, selection: _Selection) -> Table:
    scalars = _chosen("scalar", selection.statistics, run.scalars)
    columns: dict[str, Kind] = {"optimizer_index": "int", "step": "int"}
    columns |= dict.fromkeys(scalars, "float64")

    def blocks() -> Iterator[Block]:
        for index in run.optimizers:
            steps = run.steps(index)
            yield {
                "optimizer_index": np.full(len(steps), index),
                "step": steps,
                **{name: run.scalar(name, index) for name in scalars},
            }

    return Table(columns, blocks())


def _histograms(run: Run, selection: _Selection) -> Table:
    columns: dict[str, Kind] = {
        "optimizer_index": "int",
        "step": "int",
        "layer": "text",
        "magnitude": "text",
        "count": "float32",
    }
    places = _places(run, selection.layers)

    def blocks() -> Iterator[Block]:
        for index, chosen in places.items():
            for layer in (run.layers(index)[place] for place in chosen):
                steps, counts = run.histograms(layer, index)
                rows, bins = np.nonzero(counts)
                yield {
                    "optimizer_index": np.full(len(rows), index),
                    "step": steps[rows],
                    "layer": [layer] * len(rows),
                    "magnitude": [_BINS[place] for place in bins.tolist()],
                    "count": counts[rows, bins],
                }

    return Table(columns, blocks())


def _findings(run: Run, _: _Selection) -> Table:
    rows = [
        finding.to_dict()
        | {"severity": finding.severity.name.lower(), "layers": json.dumps(finding.layers)}
        for finding in run.findings
    ]
    return Table(_FINDINGS, iter([_by_column(rows, _FINDINGS)]))


def _actions(run: Run, _: _Selection) -> Table:
    records = [action.to_dict() for action in run.actions]
    rows = [row | {"numbers": json.dumps(row["numbers"])} for row in records]
    return Table(_ACTIONS, iter([_by_column(rows, _ACTIONS)]))


_MAKERS: Final = {
    "layers": _layers,
    "steps": _steps,
    "histograms": _histograms,
    "findings": _findings,
    "actions": _actions,
}

TABLES: Final = tuple(_MAKERS)
"""The tables that a run has."""


def _by_column(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Kind]) -> Block:
    return {name: [row[name] for row in rows] for name in columns}


def _chosen(what: str, asked: Sequence[str], there: Sequence[str]) -> list[str]:
    """Return which columns are asked for, in the order in which they are there."""
    missing = [name for name in asked if name not in there]
    if missing:
        known = ", ".join(there) or "none"
        msg = f"There is no {what} {missing[0]!r} in this history. There are: {known}."
        raise CommandError(msg)
    return [name for name in there if not asked or name in asked]


def _places(run: Run, globs: Sequence[str]) -> dict[int, list[int]]:
    """Return for each optimizer which of its layers are asked for."""
    names = {index: run.layers(index) for index in run.optimizers}
    found = {
        index: [i for i, layer in enumerate(mine) if not globs or _matches(layer, globs)]
        for index, mine in names.items()
    }
    if globs and not any(found.values()):
        first = [repr(layer) for mine in names.values() for layer in mine][:_MOST_NAMED]
        msg = f"No layer matches {' or '.join(map(repr, globs))}. The first are {', '.join(first)}."
        raise CommandError(msg)
    return found


def _matches(layer: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(layer, glob) for glob in globs)
