"""Files that people ask for, whole or not at all.

In: where somebody wants a file. Out: a path to write to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole_file"]


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
