"""Which files this process is writing to.

In: paths. Out: whether one of them is such a file. Where POSIX locks are used, closing any
descriptor of a file lets go of all locks that the process has on it: a reader that opened and
closed the file beside SQLite would take the writer's locks away.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from threading import Lock
from typing import Final

__all__ = ["hold", "is_held", "let_go"]

_held: Final[Counter[tuple[int, int, int]]] = Counter()
_lock: Final = Lock()


def hold(path: Path) -> tuple[int, int, int]:
    """Take note of a file that is written to; return what `let_go` takes."""
    key = _key(path)
    with _lock:
        _held[key] += 1
    return key


def let_go(key: tuple[int, int, int]) -> None:
    """Take note that a writer is done."""
    with _lock:
        _held[key] -= 1


def is_held(path: Path) -> bool:
    """Whether this process writes to a file."""
    try:
        key = _key(path)
    except OSError:
        return False
    with _lock:
        return _held[key] > 0


def _key(path: Path) -> tuple[int, int, int]:
    # A forked child has none of the locks, and can take none away.
    status = path.stat()
    return os.getpid(), status.st_dev, status.st_ino
