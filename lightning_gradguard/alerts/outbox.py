"""Alerts on their way to one channel: tried, tried again, given up.

In: alerts, from the thread that decides. Out: calls of `Channel.send`, in the thread of this
channel. Knows no thread of its own. A channel that goes on to fail is muted for a while, longer
each time, and then gets another chance, so that an hour without network does not silence a run of
a month.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import Channel, PartialError, RefusedError
from lightning_gradguard.alerts.text import harmless, said
from lightning_gradguard.findings import Severity

__all__ = ["Outbox"]

_MOST_WAITING: Final = 100
_MOST_TRIES: Final = 4
_MUTED_AFTER: Final = 5
_FIRST_MUTE: Final = 600.0
_LONGEST_MUTE: Final = 4 * 3600.0
_CRITICAL_AGAIN: Final = 60.0
"""Seconds after which what is critical is tried by a channel that is muted."""


class Outbox:
    """Deliver alerts to one channel.

    Args:
        channel: Where to.
        name: What to call it.
        min_severity: Alerts below it are not for this channel.
        scrub: Takes secrets out of a text.
        warn: Told once whenever the channel is muted, and when some of its people get nothing.
        clock: Seconds, never going back.

    Attributes:
        name: What it is called.
        lost: Alerts that were given up.
    """

    def __init__(
        self,
        channel: Channel,
        name: str,
        min_severity: Severity,
        *,
        scrub: Callable[[str], str] = str,
        warn: Callable[[str], object] = lambda _text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel, self.name, self._min_severity = channel, name, min_severity
        self._scrub, self._warn, self._clock = scrub, warn, clock
        # Held for what two threads count, never while the channel sends. Who reads `troubles`
        # takes it not: that may be a forked process, in which nobody would give it back.
        self._lock = threading.Lock()
        self._waiting: deque[Alert] = deque()
        self._current: Alert | None = None
        self._tries, self._failures, self._mutes = 0, 0, 0
        self._not_before = self._muted_until = -float("inf")
        self._error = self._partly = ""
        self.lost = self._lost_since = self._held = 0

    @property
    def troubles(self) -> tuple[str, ...]:
        """What to say of it in a summary, if it is not as it should be."""
        found = [f"alerts by {self.name}: {self._partly}"] if self._partly else []
        waiting = len(self._waiting) + (self._current is not None)
        if self.lost or self._failures or waiting:
            rest = f", {waiting} not sent" if waiting else ""
            why = f" ({self._error})" if self._error else ""
            found.append(f"alerts by {self.name}: {self.lost} lost{rest}{why}")
        return tuple(found)

    def put(self, alert: Alert) -> None:
        """Take an alert, unless it is not for this channel or the channel is muted.

        What is critical, such as the death of a run, is tried at once all the same.
        """
        if alert.severity < self._min_severity:
            return
        with self._lock:
            alert, self._held = replace(alert, suppressed=self._held), 0
            if (now := self._clock()) < self._muted_until:
                if alert.severity < Severity.CRITICAL:
                    self._lose(alert)
                    return
                self._not_before = now
            self._waiting.append(alert)
            if len(self._waiting) > _MOST_WAITING:
                self._lose(self._waiting.popleft())

    def hold_back(self, severities: Sequence[Severity]) -> None:
        """Count messages that were not told; those for this channel are told of by its next."""
        with self._lock:
            self._held += sum(severity >= self._min_severity for severity in severities)

    def work(self, _is_last: bool = False) -> float | None:  # noqa: FBT001, FBT002 - as `Worker` calls it
        """Send what is due.

        Returns:
            Seconds until there is something to try again; None if there is not.
        """
        while (alert := self._next()) is not None:
            if (wait := self._not_before - self._clock()) > 0.0:
                return wait
            lost = self._lost_since
            try:
                self._channel.send(replace(alert, suppressed=alert.suppressed + lost))
            except PartialError as error:
                self._succeed(lost)
                self._note(self._words(error))
            except BaseException as error:  # noqa: BLE001 - anybody's code, in our thread
                self._fail(alert, error)
            else:
                self._succeed(lost)
        return None

    def _next(self) -> Alert | None:
        with self._lock:
            if self._current is None and self._waiting:
                self._current = self._waiting.popleft()
            return self._current

    def _words(self, error: BaseException) -> str:
        return harmless(self._scrub(said(error)), 300)

    def _note(self, partly: str) -> None:
        if partly != self._partly:
            self._partly = partly
            self._warn(f"alerts by {self.name}: {partly}")

    def _succeed(self, told_of: int) -> None:
        with self._lock:
            self._current = None
            self._tries = self._failures = self._mutes = 0
            self._lost_since -= told_of

    def _fail(self, alert: Alert, error: BaseException) -> None:
        now = self._clock()  # a send may have taken longer than the wait that follows it
        self._error = self._words(error)
        self._tries, self._failures = self._tries + 1, self._failures + 1
        self._not_before = now + 2.0**self._tries
        if isinstance(error, RefusedError) or self._tries >= _MOST_TRIES:
            with self._lock:
                self._current = None
                self._lose(alert)
            self._tries, self._not_before = 0, now
        if self._failures >= _MUTED_AFTER:
            self._mute(now)

    def _mute(self, now: float) -> None:
        seconds = min(_LONGEST_MUTE, _FIRST_MUTE * 2.0**self._mutes)
        self._mutes, self._failures, self._tries = self._mutes + 1, 0, 0
        with self._lock:
            kept = [alert for alert in (self._current, *self._waiting) if alert is not None]
            self._current = None
            self._waiting.clear()
            for alert in kept:
                if alert.severity < Severity.CRITICAL:
                    self._lose(alert)
                else:
                    self._waiting.append(alert)
            self._muted_until = now + seconds
            self._not_before = now + (_CRITICAL_AGAIN if self._waiting else seconds)
        self._warn(
            f"alerts by {self.name} failed {_MUTED_AFTER} times in a row and are left out for "
            f"{seconds / 60.0:.0f} minutes: {self._error}"
        )

    def _lose(self, alert: Alert) -> None:
        self.lost += 1
        self._lost_since += 1 + alert.suppressed  # what it would have told of is not told either
