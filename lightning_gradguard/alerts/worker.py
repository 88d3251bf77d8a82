"""A daemon thread that does one thing again and again, and that nothing but its owner ends.

In: a function, which says when it wants to be called next. Out: its calls. Every thread of the
alerts is one of these, so that what blocks in one of them holds up no other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Worker"]

_log: Final = logging.getLogger("lightning_gradguard.alerts")

_AFTER_FAULT_SECONDS: Final = 1.0


class Worker:
    """Call a function at once, when woken, and when it asked to be called.

    Args:
        name: Of the thread.
        work: Told whether the end was asked for. Returns the seconds after which it is called
            again; None waits until it is woken, and lets the thread end if that was asked for.

    Example:
        >>> said = []
        >>> worker = Worker("example", lambda is_last: said.append(is_last))
        >>> worker.close()
        >>> worker.join(time.monotonic() + 5.0)
        >>> said[-1], worker.is_alive
        (True, False)
    """

    def __init__(self, name: str, work: Callable[[bool], float | None]) -> None:
        self._work = work
        self._wake = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread goes on."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Have the function called soon."""
        self._wake.set()

    def close(self) -> None:
        """Ask for the end, and wait for nothing."""
        self._is_closing = True
        self._wake.set()

    def join(self, until: float) -> None:
        """Wait for the end, but no longer than to a moment of `time.monotonic`."""
        self._thread.join(min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX))

    def _run(self) -> None:
        wait: float | None = 0.0
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            is_last = self._is_closing
            try:
                wait = self._work(is_last)
            except BaseException:  # noqa: BLE001 - nothing must end the thread
                _log.exception("a fault of gradguard's alerts; they go on")
                wait = None if is_last else _AFTER_FAULT_SECONDS
            if is_last and wait is None:
                return
