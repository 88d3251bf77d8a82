"""``gradguard export RUN``: the numbers of a run for other programs.

In: a history. Out: one of its tables as CSV or Parquet.
"""

from __future__ import annotations

import io
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lightning_gradguard.cli.arguments import add_json, add_run
from lightning_gradguard.cli.files import check_target
from lightning_gradguard.cli.outcome import CLEAN, CommandError
from lightning_gradguard.cli.records import record
from lightning_gradguard.cli.runs import one_run
from lightning_gradguard.cli.terminal import say, say_json
from lightning_gradguard.report.files import whole_file

if TYPE_CHECKING:
    from lightning_gradguard.cli.tables import Table

__all__ = ["HELP", "NAME", "TABLES", "add_arguments", "run"]

NAME: Final = "export"
HELP: Final = "Write the numbers of a run as CSV or Parquet"

TABLES: Final = ("layers", "steps", "histograms", "findings", "actions")
"""Those of `tables`, spelled out since that module takes numpy along."""

_FORMATS: Final = ("csv", "parquet")
_OTHER_SUFFIXES: Final = frozenset({".xlsx", ".xls", ".ods", ".json", ".jsonl", ".html", ".npz"})
_PARQUET_SUFFIXES: Final = frozenset({".parquet", ".pq"})


def add_arguments(parser: ArgumentParser) -> None:
    """Say which options the command has."""
    add_run(parser)
    parser.add_argument(
        "--to",
        choices=_FORMATS,
        help="the format; without it, the ending of FILE says which, and csv is the default",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="without it, CSV goes to standard output"
    )
    parser.add_argument(
        "--table",
        choices=TABLES,
        default=TABLES[0],
        help="layers: a row per step and layer, the default; steps: a row per step; histograms: a "
        "row per sampled step, layer and power of two; findings; actions",
    )
    parser.add_argument(
        "--layers",
        action="append",
        default=[],
        metavar="GLOB",
        help="only layers of these names, such as 'encoder.*'; may be given again",
    )
    parser.add_argument(
        "--statistics",
        action="append",
        default=[],
        metavar="NAME",
        help="only this statistic or scalar, such as grad_norm; may be given again",
    )
    add_json(parser)


def run(options: Namespace) -> int:
    """Write the table; return the exit code."""
    from lightning_gradguard.cli.tables import make_table

    target: Path | None = options.output
    to = options.to or _format_of(target)
    if to is None:
        msg = f"{target} says neither csv nor parquet by its ending. Say which: --to csv."
        raise CommandError(msg)
    if target is None and (to == "parquet" or options.json):
        msg = "Standard output holds CSV only. Name a file: -o FILE."
        raise CommandError(msg)
    with one_run(options.run) as history:
        table = make_table(
            options.table, history, layers=options.layers, statistics=options.statistics
        )
        if target is None:
            _to_standard_output(table)
            return CLEAN
        check_target(target, [history.path])
        with whole_file(target) as part:
            rows = _write(table, part, to)
    if options.json:
        what = {"table": options.table, "format": to, "columns": list(table.columns), "rows": rows}
        say_json(record(NAME, file=str(target), **what))
    else:
        say(f"{target}: {rows} rows of the table {options.table}")
    return CLEAN


def _format_of(target: Path | None) -> str | None:
    """Return the format that an ending says, None where it says another one."""
    suffix = "" if target is None else target.suffix.lower()
    if suffix in _PARQUET_SUFFIXES:
        return "parquet"
    return None if suffix in _OTHER_SUFFIXES else "csv"


def _write(table: Table, path: Path, to: str) -> int:
    if to == "parquet":
        from lightning_gradguard.cli.parquet_file import write_parquet

        return write_parquet(table, path)
    from lightning_gradguard.cli.csv_file import write_csv

    with path.open("w", encoding="utf-8", newline="") as stream:
        return write_csv(table, stream)


def _to_standard_output(table: Table) -> None:
    from lightning_gradguard.cli.csv_file import write_csv

    # UTF-8 as in a file, whatever the terminal's language.
    if sys.stdout is None:
        msg = "Standard output is closed. Name a file: -o FILE."
        raise CommandError(msg)
    stream = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="")
    try:
        write_csv(table, stream)
    finally:
        stream.detach()
