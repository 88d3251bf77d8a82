"""Alerts on their way to one channel: tried, tried again, given up.

In: alerts, and the time. Out: calls of `Channel.send`. Knows no thread and no clock of its own. A
channel that goes on to fail is muted for a while, longer each time, and then gets another chance,
so that an hour without network does not silence a run of a month.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import Channel, RefusedError
from lightning_gradguard.alerts.text import harmless, said
from lightning_gradguard.findings import Severity

__all__ = ["Outbox"]

_MOST_WAITING: Final = 100
_MOST_TRIES: Final = 4
_MUTED_AFTER: Final = 5
_LONGEST_WAIT: Final = 60.0
_FIRST_MUTE: Final = 600.0
_LONGEST_MUTE: Final = 4 * 3600.0


class Outbox:
    """Deliver alerts to one channel.

    Args:
        channel: Where to.
        name: What to call it.
        min_severity: Alerts below it are not for this channel.
        scrub: Takes secrets out of a text.
        warn: Told once whenever the channel is muted.

    Attributes:
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
    ) -> None:
        self._channel, self._name, self._min_severity = channel, name, min_severity
        self._scrub, self._warn = scrub, warn
        self._waiting: deque[Alert] = deque()
        self._tries, self._failures, self._mutes = 0, 0, 0
        self._not_before = self._muted_until = -1.0
        self._error = ""
        self.lost = self._untold = 0

    @property
    def trouble(self) -> str | None:
        """What to say of it in a summary, if it is not as it should be."""
        if not self.lost and not self._failures and not self._waiting:
            return None
        waiting = f", {len(self._waiting)} not sent" if self._waiting else ""
        why = f" ({self._error})" if self._error else ""
        return f"alerts by {self._name}: {self.lost} lost{waiting}{why}"

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def put(self, alert: Alert, *, now: float) -> None:
        """Take an alert, unless it is not for this channel or the channel is muted."""
        if alert.severity < self._min_severity:
            return
        if now < self._muted_until:
            self._lose()
            return
        self._waiting.append(alert)
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self._lose()

    def deliver(self, *, now: float) -> float | None:
        """Send what is due.

        Returns:
            Seconds until there is something to try again; None if there is not.
        """
        while self._waiting:
            if now < self._not_before:
                return self._not_before - now
            alert = self._waiting[0]
            try:
                self._channel.send(replace(alert, suppressed=alert.suppressed + self._untold))
            except BaseException as error:  # noqa: BLE001 - anybody's code, in our thread
                self._fail(error, now)
            else:
                self._waiting.popleft()
                self._tries = self._failures = self._mutes = self._untold = 0
        return None

    def _fail(self, error: BaseException, now: float) -> None:
        self._tries, self._failures = self._tries + 1, self._failures + 1
        self._error = harmless(self._scrub(said(error)), 300)
        self._not_before = now + min(_LONGEST_WAIT, 2.0**self._tries)
        if isinstance(error, RefusedError) or self._tries >= _MOST_TRIES:
            self._waiting.popleft()
            self._lose()
            self._tries, self._not_before = 0, -1.0
        if self._failures >= _MUTED_AFTER:
            self._mute(now)

    def _mute(self, now: float) -> None:
        seconds = min(_LONGEST_MUTE, _FIRST_MUTE * 2.0**self._mutes)
        self._mutes, self._failures = self._mutes + 1, 0
        self._muted_until = now + seconds
        for _ in range(len(self._waiting)):
            self._lose()
        self._waiting.clear()
        self._warn(
            f"alerts by {self._name} failed {_MUTED_AFTER} times in a row and are left out for "
            f"{seconds / 60.0:.0f} minutes: {self._error}"
        )

    def _lose(self) -> None:
        self.lost, self._untold = self.lost + 1, self._untold + 1
