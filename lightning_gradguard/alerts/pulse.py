"""The heartbeat: a request now and then while training advances, for a watcher outside.

In: how often training advanced. Out: pings. It has a thread of its own, since a server may take
its time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from lightning_gradguard.alerts.watch import Heartbeat

__all__ = ["Pulse"]

_log: Final = logging.getLogger("lightning_gradguard.alerts")

_LOOK_SECONDS: Final = 1.0


class Pulse:
    """Ping when it is due.

    Args:
        heartbeat: Says when that is.
        ping: Pings once, and may raise.
        clock: Seconds, never going back.

    Attributes:
        beats: How often training advanced; written by the training thread.

    Example:
        >>> pulse = Pulse(Heartbeat(60.0), lambda: print("ping"))
        >>> pulse.beats = 1
        >>> pulse.work(is_last=False)
        ping
        1.0
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        ping: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._heartbeat, self._ping, self._clock = heartbeat, ping, clock
        self._error: str | None = None
        self.beats = 0

    @property
    def trouble(self) -> str | None:
        """What went wrong with the latest ping."""
        return self._error and f"heartbeat: {self._error}"

    def work(self, is_last: bool) -> float | None:  # noqa: FBT001 - as `Worker` calls it
        """Ping if it is due; return when to look again."""
        if is_last:
            return None
        if self._heartbeat.is_due(self.beats, now=self._clock()):
            self._try()
        return _LOOK_SECONDS

    def _try(self) -> None:
        try:
            self._ping()
        except BaseException as error:  # noqa: BLE001 - any network; it is tried again next time
            name = type(error).__name__
            if self._error is None:
                _log.warning("the heartbeat failed, and will be tried again: %s", name)
            self._error = name
        else:
            self._error = None
