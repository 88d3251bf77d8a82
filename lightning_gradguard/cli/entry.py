"""From arguments to one of the commands, and from what it raised to an exit code.

In: the words after ``gradguard``. Out: an exit code. Each command is a file of this folder with
``NAME``, ``HELP``, ``add_arguments`` and ``run``, and loads what it needs only when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Final, Protocol

import lightning_gradguard
from lightning_gradguard.cli import doctor, export, preflight, replay, report, summary, tail
from lightning_gradguard.cli.outcome import CUT_SHORT, FAULT, INTERRUPTED, UNUSABLE
from lightning_gradguard.cli.terminal import complain
from lightning_gradguard.errors import GradGuardError

__all__ = ["main"]

_EPILOG: Final = """\
exit codes:
  0  done, and no finding at or above --fail-on
  1  done, and there is one; for doctor, something is wrong; for preflight, the signal is not kept
  2  a wrong option, a history that cannot be read, or a model that cannot be run
  3  a fault of this program
"""


class Command(Protocol):
    """A file of this folder that is a command."""

    @property
    def NAME(self) -> str:  # noqa: N802 - constants of a module
        """The word after ``gradguard``."""
        ...

    @property
    def HELP(self) -> str:  # noqa: N802
        """One line, without a full stop."""
        ...

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Say which options the command has."""
        ...

    def run(self, options: Namespace) -> int:
        """Do it, and return the exit code."""
        ...


COMMANDS: Final[tuple[Command, ...]] = (
    summary,
    report,
    tail,
    export,
    replay,
    doctor,
    preflight,
)


def make_parser() -> ArgumentParser:
    """Return the parser of all commands."""
    parser = ArgumentParser(
        prog="gradguard",
        description="Look at what lightning-gradguard wrote down about a training, or check a "
        "model before its first step.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"gradguard {lightning_gradguard.__version__}"
    parser.add_argument("--version", action="version", version=version)
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        verb = verbs.add_parser(command.NAME, help=command.HELP, description=f"{command.HELP}.")
        command.add_arguments(verb)
        verb.set_defaults(do=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after ``gradguard``; None takes those of this process.

    Returns:
        The exit code, see `outcome`.

    Raises:
        SystemExit: ``--help`` or ``--version`` was asked for, or an option is wrong.
    """
    options = make_parser().parse_args(arguments)
    try:
        code: int = options.do(options)
    except BrokenPipeError:
        _be_quiet()
        return CUT_SHORT
    except KeyboardInterrupt:
        return INTERRUPTED
    except (GradGuardError, OSError) as error:
        complain(str(error))
        return UNUSABLE
    except Exception:  # noqa: BLE001 - Python's own code for it would be that of a finding
        import traceback

        complain("a fault of this program; please report what follows.")
        traceback.print_exc()
        return FAULT
    return code


def _be_quiet() -> None:
    """Let nothing more be written: the reader, such as ``head``, has gone."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
