"""A history file that is open for reading, perhaps while a training writes to it.

In: a path. Out: rows, and whether there is something new. What goes wrong is one kind of error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lightning_gradguard.errors import HistoryError
from lightning_gradguard.history.opening import connect, reading

__all__ = ["Source"]

_MOST_BYTES: Final = 1 << 29
_NUMBER_BYTES: Final = 32
"""What a number takes in memory, at most."""


class Source:
    """Read rows of one file.

    Args:
        path: The file.

    Raises:
        HistoryError: It is empty, cut off, newer or not ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection, self._copy = connect(path)
        with reading(path):
            self._inode = path.stat().st_ino
        self._version, self._files = self._data_version(), self._signature()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
        if self._copy is not None:
            self._copy.cleanup()

    def rows(
        self, text: str, *values: object, most_bytes: int = _MOST_BYTES
    ) -> list[tuple[Any, ...]]:
        """Return all rows that a query finds.

        Raises:
            HistoryError: Texts and blobs take more than ``most_bytes``, or the file is damaged.
        """
        found, size = [], 0
        with reading(self.path):
            for row in self._connection.execute(text, values):
                size += sum(
                    len(one) if isinstance(one, (str, bytes)) else _NUMBER_BYTES for one in row
                )
                if size > most_bytes:
                    msg = (
                        f"{self.path} is too large: one answer takes more than {most_bytes} bytes."
                    )
                    raise HistoryError(msg)
                found.append(row)
        return found

    @property
    def is_replaced(self) -> bool:
        """Whether the file that was opened is no longer the one of that name."""
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def refresh(self) -> bool:
        """Take note of what was written since; True when there is something new."""
        if self._copy is not None:  # the file itself could not be read while it was left half done
            files = self._signature()
            if files == self._files:
                return False
            self.close()
            self._connection, self._copy = connect(self.path)
            self._version, self._files = self._data_version(), files
            return True
        version, before = self._data_version(), self._version
        self._version = version
        return version != before

    def _signature(self) -> tuple[tuple[int, int], ...]:
        """Return what changes when somebody writes to the file or what lies beside it."""
        files = [Path(f"{self.path}{ending}") for ending in ("", "-wal", "-journal")]
        with reading(self.path):
            found = [file.stat() for file in files if file.exists()]
            return tuple((stat.st_mtime_ns, stat.st_size) for stat in found)

    def _data_version(self) -> int:
        with reading(self.path):
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
