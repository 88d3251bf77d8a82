"""``gradguard report RUN... -o report.html``: a page that opens anywhere, without a network.

In: histories. Out: one HTML file, made by `lightning_gradguard.report.html`.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lightning_gradguard.cli.arguments import add_fail_on, add_json
from lightning_gradguard.cli.files import check_target
from lightning_gradguard.cli.outcome import exit_code
from lightning_gradguard.cli.records import record
from lightning_gradguard.cli.runs import about, each_run
from lightning_gradguard.cli.terminal import say, say_json

if TYPE_CHECKING:
    from lightning_gradguard.history import Run

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME: Final = "report"
HELP: Final = "Write a page about one run, or several side by side, that opens without a network"


def add_arguments(parser: ArgumentParser) -> None:
    """Say which options the command has."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run, or a folder that stands for all runs beneath it",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page to write; report.html by default",
    )
    add_json(parser)
    add_fail_on(parser)


def run(options: Namespace) -> int:
    """Write the page; return the exit code."""
    target: Path = options.output
    with each_run(options.runs) as histories:
        check_target(target, [history.path for history in histories])
        _write(histories, target)
        if options.json:
            say_json(record(NAME, file=str(target), runs=[about(run) for run in histories]))
        else:
            say(f"{target}: {', '.join(history.name for history in histories)}")
        findings = [finding for history in histories for finding in history.findings]
        return exit_code(findings, options.fail_on)


def _write(histories: Sequence[Run], target: Path) -> None:
    from lightning_gradguard.report.html import write_report

    write_report(histories, target)
