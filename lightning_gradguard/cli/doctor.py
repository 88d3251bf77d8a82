"""``gradguard doctor [DIRECTORY]``: is everything there, and what does TensorBoard's tab see?

In: this installation, and the histories beneath a folder. Out: one line per thing looked at.
Nothing is changed and nothing is sent anywhere. (Whether acting will work in a training is asked
elsewhere, when it starts.)
"""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from lightning_gradguard.cli.arguments import add_json
from lightning_gradguard.cli.outcome import CLEAN, FOUND
from lightning_gradguard.cli.records import record
from lightning_gradguard.cli.terminal import say, say_json

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["HELP", "NAME", "Check", "add_arguments", "run"]

NAME: Final = "doctor"
HELP: Final = "Say what is installed, whether TensorBoard's tab works, and which runs it sees"

_NEEDED: Final = ("numpy", "torch", "pytorch-lightning", "tensorboard")
_OPTIONAL: Final = {
    "lightning": "the other name of Lightning",
    "rich": "colour in the terminal",
    "pyarrow": "export to Parquet",
    "tensorboard-data-server": "TensorBoard's fast loader",
}
_NOT_SET: Final = frozenset({"", "0", "false", "no", "off"})
"""Values of ``GRADGUARD_DISABLE`` that mean nothing, as the callbacks read them."""

_HEAVY: Final = ("torch", "pytorch_lightning", "lightning")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        about: What: ``"version"``, ``"environment"``, ``"plugin"`` or ``"history"``.
        status: Whether it is all right, worth knowing, or wrong.
        text: What was seen and, where it is wrong, what to do.
    """

    about: str
    status: Literal["ok", "note", "problem"]
    text: str


def add_arguments(parser: ArgumentParser) -> None:
    """Say which options the command has."""
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="DIRECTORY",
        help="the log directory that TensorBoard is given; looks at all histories beneath it",
    )
    add_json(parser)


def run(options: Namespace) -> int:
    """Print what was seen; return 1 if something is wrong."""
    checks = [*_versions(), *_environment(), *_plugin()]
    if options.folder is not None:
        checks += _histories(options.folder)
    problems = sum(check.status == "problem" for check in checks)
    if options.json:
        say_json(record(NAME, problems=problems, checks=[asdict(check) for check in checks]))
    else:
        for check in checks:
            say(f"  {check.status:8} {check.text}")
        say(f"gradguard: {_verdict(problems)}")
    return FOUND if problems else CLEAN


def _verdict(problems: int) -> str:
    if not problems:
        return "nothing is wrong"
    return "1 thing is wrong" if problems == 1 else f"{problems} things are wrong"


def _versions() -> Iterator[Check]:
    # Late, since the other commands start faster without them.
    import platform
    import sqlite3

    here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    own = _version("lightning-gradguard")
    yield Check("version", "ok", f"lightning-gradguard {own or 'from a source tree'}, {here}")
    yield Check("version", "ok", f"SQLite {sqlite3.sqlite_version}")
    for name in _NEEDED:
        version = _version(name)
        if version is None:
            text = f"{name} is not installed, and is needed: pip install {name}"
            yield Check("version", "problem", text)
        else:
            yield Check("version", "ok", f"{name} {version}")
    for name, use in _OPTIONAL.items():
        version = _version(name)
        if version is None:
            yield Check("version", "note", f"{name} is not installed; it would give {use}")
        else:
            yield Check("version", "ok", f"{name} {version}")


def _version(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _environment() -> Iterator[Check]:
    value = os.environ.get("GRADGUARD_DISABLE", "")
    if value.lower() not in _NOT_SET:
        text = f"GRADGUARD_DISABLE={value} is set: callbacks do nothing. Unset it to look again."
        yield Check("environment", "note", text)


def _plugin() -> Iterator[Check]:
    """Look for the tab as TensorBoard does: an entry point, loaded at start."""
    from importlib import metadata

    found = [p for p in metadata.entry_points(group="tensorboard_plugins") if _is_ours(p)]
    if not found:
        text = "TensorBoard does not know the tab: install the package again, with pip."
        yield Check("plugin", "problem", text)
        return
    began = time.perf_counter()
    try:
        found[0].load()
    except Exception as error:  # noqa: BLE001 - whatever it is, TensorBoard would meet it, too
        text = f"The tab cannot be loaded: {type(error).__name__}: {error}"
        yield Check("plugin", "problem", text)
        return
    took = time.perf_counter() - began
    yield Check("plugin", "ok", f"TensorBoard's tab loads in {took:.2f} s ({found[0].value})")
    heavy = [name for name in _HEAVY if name in sys.modules]
    if heavy:
        text = f"Loading the tab loads {', '.join(heavy)}, which slows TensorBoard down."
        yield Check("plugin", "problem", text)


def _is_ours(point: EntryPoint) -> bool:
    return point.value.startswith("lightning_gradguard.")


def _histories(folder: str) -> Iterator[Check]:
    from lightning_gradguard.history import HistoryError, find_histories

    try:
        files = find_histories(folder)
    except HistoryError as error:
        yield Check("history", "problem", str(error))
        return
    if not files:
        text = f"No history beneath {folder}: the tab stays empty. Is it the log directory?"
        yield Check("history", "problem", text)
    for file in files:
        yield _history(file)


def _history(file: Path) -> Check:
    from lightning_gradguard.cli.runs import optimizers, state
    from lightning_gradguard.history import HistoryError, load_run

    try:
        with load_run(file) as history:
            steps = sum(mine["steps"] for mine in optimizers(history))
            size = file.stat().st_size / 1e6
            text = f"{file}: {steps} steps, {size:.1f} MB, {state(history)}"
            return Check("history", "ok", text)
    except HistoryError as error:
        return Check("history", "problem", str(error))
