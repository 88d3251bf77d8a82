"""Options that several commands share.

In: a parser. Out: the same parser, with more options.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Final

from lightning_gradguard.cli.outcome import FAIL_ON

__all__ = ["add_fail_on", "add_json", "add_run"]

_RUN: Final = (
    "a log directory, a version folder such as lightning_logs/version_0, its folder gradguard, or "
    "the file history.sqlite itself"
)


def add_run(parser: ArgumentParser) -> None:
    """Ask for the run to look at."""
    parser.add_argument("run", metavar="RUN", help=_RUN)


def add_json(parser: ArgumentParser, *, lines: bool = False) -> None:
    """Offer JSON instead of text."""
    form = "one JSON object per line" if lines else "JSON"
    parser.add_argument("--json", action="store_true", help=f"print {form} instead of text")


def add_fail_on(parser: ArgumentParser) -> None:
    """Offer an exit code that tells whether there were findings."""
    parser.add_argument(
        "--fail-on",
        choices=FAIL_ON,
        default="never",
        metavar="SEVERITY",
        help="exit with 1 if there is a finding of at least this severity: "
        f"{', '.join(FAIL_ON[1:])}; or never, which is the default",
    )
