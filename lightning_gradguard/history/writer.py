"""Batches of records, written by a thread of their own.

In: records from the training thread, which never waits. Out: commits, about two a second. What goes
wrong in the thread is kept, and told to whoever writes next.
"""

from __future__ import annotations

import atexit
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding
from lightning_gradguard.history.storage import Entry, Storage

__all__ = ["Writer"]

_SECONDS: Final = 0.5
_BATCH: Final = 128
_MOST_WAITING: Final = 8192
_MOST_WAITING_BYTES: Final = 1 << 27
_NUMBERS_PER_LAYER: Final = 20
_PATIENCE_SECONDS: Final = 600.0
"""How long a file that somebody else holds, or a full disk, is waited for."""
_PATIENCE_AT_END_SECONDS: Final = 15.0


class Writer:
    """Write one attempt of a run.

    Args:
        path: The history file, new or to be continued.
        about: What is known of the attempt, as JSON types.
        meta: What is known of the run, as JSON types.

    Attributes:
        dropped: Records that were not written since the disk was too slow, or held too long.
        patience_seconds: How long to try again where somebody else holds the file or the disk is
            full.

    Cost:
        Microseconds a record in the calling thread.
    """

    def __init__(
        self,
        path: Path,
        *,
        about: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.dropped = path, 0
        self._about, self._meta = dict(about or {}), dict(meta or {})
        self._waiting: deque[Entry | Finding | Action] = deque()
        self._error: Exception | None = None
        self._wake, self._done = threading.Event(), threading.Event()
        self._closing = False
        self._ending: tuple[str | None, dict[str, Any]] = (None, {})
        self._flushes: deque[threading.Event] = deque()
        self.patience_seconds = _PATIENCE_SECONDS
        self._thread = threading.Thread(target=self._run, name="gradguard-history", daemon=True)
        self._thread.start()
        # Where nobody says that training is over, what waits is written all the same.
        atexit.register(self._leave)

    def add(self, record: Entry | Finding | Action) -> None:
        """Take a record.

        Raises:
            Exception: Whatever ended the thread, such as a full disk.
        """
        if self._error is not None:
            raise self._error
        if len(self._waiting) >= _most_waiting(record):
            self.dropped += 1
            return
        self._waiting.append(record)
        if len(self._waiting) >= _BATCH:
            self._wake.set()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything given so far is committed."""
        written = threading.Event()
        self._flushes.append(written)
        self._wake.set()
        if not self._done.is_set() and self._thread.is_alive():  # not so in a forked child
            written.wait(timeout)
        if self._error is not None:
            raise self._error

    def close(self, finished: str | None = None, timeout: float = 30.0, **meta: Any) -> None:  # noqa: ANN401 - JSON types
        """Write the rest, say how it ended, and stop.

        Raises:
            Exception: Whatever ended the thread.
        """
        self._ending, self._closing = (finished, meta), True
        self._wake.set()
        atexit.unregister(self._leave)
        self._thread.join(timeout)
        if self._error is not None:
            raise self._error

    def _leave(self) -> None:
        if not self._closing:
            self._closing = True
            self._wake.set()
            self._thread.join(_PATIENCE_AT_END_SECONDS)

    def _run(self) -> None:
        try:
            # The connection stays a local of this thread, so that no fork ever closes it.
            storage = Storage(self.path, about=self._about, meta=self._meta)
            try:
                self._serve(storage)
            finally:
                finished, meta = self._ending
                if self.dropped:
                    meta = {**meta, "dropped_records": self.dropped}
                storage.close(finished, **meta)
        except Exception as error:  # noqa: BLE001 - told to whoever writes next
            self._error = error
            self._waiting.clear()
        finally:
            self._done.set()
            for written in self._flushes:
                written.set()

    def _serve(self, storage: Storage) -> None:
        while True:
            self._wake.wait(_SECONDS)
            self._wake.clear()
            is_last = self._closing
            asked = len(self._flushes)
            while self._waiting:
                count = min(len(self._waiting), 2 * _BATCH)
                self._commit(storage, [self._waiting.popleft() for _ in range(count)])
            # Not before: whoever waits is to be told of an error, too.
            for _ in range(asked):
                self._flushes.popleft().set()
            if is_last:
                return

    def _commit(self, storage: Storage, batch: list[Entry | Finding | Action]) -> None:
        """Write a batch, trying again where that may help."""
        began = time.monotonic()
        while True:
            try:
                storage.write(batch)
            except sqlite3.OperationalError:
                most = self.patience_seconds
                most = min(most, _PATIENCE_AT_END_SECONDS) if self._closing else most
                if time.monotonic() - began >= most:
                    raise
                time.sleep(_SECONDS)
            else:
                return


def _most_waiting(record: Entry | Finding | Action) -> int:
    """Return how many records may wait, so that they take no more than some memory."""
    if not isinstance(record, Entry):
        return _MOST_WAITING
    bytes_each = 8 * _NUMBERS_PER_LAYER * max(1, len(record.frame.layers))
    return min(_MOST_WAITING, max(2 * _BATCH, _MOST_WAITING_BYTES // bytes_each))
