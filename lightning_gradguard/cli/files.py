"""Files that the commands write.

In: where somebody wants a file. Out: that file, whole or not at all, and never in place of a
history.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_gradguard.cli.outcome import CommandError

__all__ = ["check_target", "whole_file"]


def check_target(target: Path, histories: Iterable[Path]) -> None:
    """Refuse a place at which a file cannot or must not be written.

    Args:
        target: Where the file would be.
        histories: What must not be written over.

    Raises:
        CommandError: The folder is not there, or the target is a folder or a history.
    """
    if not target.absolute().parent.is_dir():
        msg = f"There is no folder {target.absolute().parent}. Make it first."
        raise CommandError(msg)
    if target.is_dir():
        msg = f"{target} is a folder. Name a file in it, such as {target / 'out'}."
        raise CommandError(msg)
    place = target.resolve()
    for history in histories:
        own = history.resolve()
        if place.parent == own.parent and place.name.startswith(own.name):
            msg = f"{target} belongs to the history itself. Name another file."
            raise CommandError(msg)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a path to write to, and put the file in its place once it is complete."""
    if target.exists() and not target.is_file():
        yield target  # a pipe or a device, which cannot be replaced
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
