"""The one thread that tells people: it waits for events, decides, sends, pings and watches.

In: events from the training thread, which never waits. Out: calls of channels. Nothing that a
network does can reach the training thread: it puts a record into a bounded queue, and counts.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.incidents import Incidents
from lightning_gradguard.alerts.outbox import Outbox
from lightning_gradguard.alerts.watch import Heartbeat, Watchdog
from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity

__all__ = ["Desk"]

_log: Final = logging.getLogger("lightning_gradguard.alerts")

_MOST_WAITING: Final = 1000
_LOOK_SECONDS: Final = 1.0
_GRACE_SECONDS: Final = 0.25
"""So long the answer of a guard to a finding is waited for."""


class Desk:
    """Tell people of what is put here.

    Args:
        incidents: Decide what is told.
        outboxes: Where it goes.
        stamp: Adds to an alert what is the same for all: run, machine, link.
        heartbeat: Says when to ping; None for no pings.
        ping: Pings once, and may raise.
        watchdog: Notices that training stands still; None for no such watch.
        clock: Seconds, never going back.

    Attributes:
        step: The latest optimizer step; written by the training thread.
        beats: How often training advanced; written by the training thread.

    Cost:
        `put` and `beat` take microseconds, whatever the network does.
    """

    def __init__(
        self,
        incidents: Incidents,
        outboxes: Sequence[Outbox],
        stamp: Callable[[Alert], Alert],
        *,
        heartbeat: Heartbeat | None = None,
        ping: Callable[[], object] | None = None,
        watchdog: Watchdog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._incidents, self._outboxes, self._stamp = incidents, tuple(outboxes), stamp
        self._heartbeat, self._ping, self._watchdog = heartbeat, ping, watchdog
        self._clock = clock
        self.step, self.beats, self._missed = -1, 0, 0
        self._ping_error: str | None = None
        self._waiting: deque[Finding | Action | Alert] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="gradguard-alerts", daemon=True)
        self._thread.start()

    def put(self, event: Finding | Action | Alert) -> None:
        """Take an event; called in the training thread."""
        if os.getpid() != self._process:
            return  # a forked child, which has no thread and must not speak for its parent
        if len(self._waiting) >= _MOST_WAITING:
            self._missed += 1
            return
        self._waiting.append(event)
        self._wake.set()

    def beat(self) -> None:
        """Take note that training advanced; called in the training thread."""
        self.beats += 1

    def close(self, timeout: float) -> None:
        """Tell what is left, and stop; takes no longer than ``timeout`` seconds."""
        if os.getpid() != self._process:
            return
        self._is_closing = True
        self._wake.set()
        self._thread.join(min(timeout, threading.TIMEOUT_MAX))

    @property
    def troubles(self) -> tuple[str, ...]:
        """What could not be told, one sentence each."""
        found = [box.trouble for box in self._outboxes]
        found.append(self._ping_error and f"heartbeat: {self._ping_error}")
        if self._is_closing and self._thread.is_alive():
            found.append("alerts: a channel or the heartbeat did not come to an end in time")
        if self._missed:
            found.append(f"alerts: {self._missed} events came faster than they could be handled")
        return tuple(one for one in found if one)

    def _run(self) -> None:
        wait: float | None = None
        while True:
            self._wake.wait(_LOOK_SECONDS if wait is None else min(wait, _LOOK_SECONDS))
            self._wake.clear()
            is_last = self._is_closing
            try:
                self._work(is_last=is_last)
                wait = self._deliver()
                if not is_last:
                    self._ping_if_due()  # after what is worth more
            except BaseException:  # noqa: BLE001 - nothing must end the thread
                _log.exception("a fault of gradguard's alerts; they go on")
            # What failed is tried again until whoever closes has waited long enough.
            if is_last and (wait is None or all(box.is_empty for box in self._outboxes)):
                return

    def _work(self, *, is_last: bool) -> None:
        if self._waiting and not is_last:
            time.sleep(_GRACE_SECONDS)
        now = self._clock()
        events = [self._waiting.popleft() for _ in range(len(self._waiting))]
        # First what was done, so that what it was done against can tell of it.
        for event in sorted(events, key=lambda event: not isinstance(event, Action)):
            self._tell(self._judge(event, now), now)
        self._tell(self._incidents.tick(step=self.step, now=now), now)
        if self._watchdog is not None and not is_last:
            self._tell(self._stalled(self._watchdog, now), now)
        if is_last:
            self._tell(self._incidents.close(now=now), now)

    def _judge(self, event: Finding | Action | Alert, now: float) -> Iterable[Alert]:
        if isinstance(event, Finding):
            return self._incidents.take(event, now=now)
        if isinstance(event, Action):
            self._incidents.note(event)
            return ()
        alert = replace(event, recent=self._incidents.recent)
        return (self._incidents.sent(alert, now=now),)

    def _stalled(self, dog: Watchdog, now: float) -> Iterable[Alert]:
        seen = dog.look(self.beats, now=now)
        if seen is None:
            return
        is_stalled = seen == "stalled"
        alert = Alert(
            kind="stalled",
            state="opened" if is_stalled else "resolved",
            severity=Severity.CRITICAL,
            message=f"no batch was completed for {dog.limit_seconds:.0f} seconds"
            if is_stalled
            else "training goes on",
            incident="stalled",
            step=self.step,
            advice="look at the data loader, the network between ranks, and the machine",
        )
        yield self._incidents.sent(alert, now=now)

    def _tell(self, alerts: Iterable[Alert], now: float) -> None:
        for alert in alerts:
            stamped = self._stamp(alert)
            for box in self._outboxes:
                box.put(stamped, now=now)

    def _deliver(self) -> float | None:
        waits = [box.deliver(now=self._clock()) for box in self._outboxes]
        return min((wait for wait in waits if wait is not None), default=None)

    def _ping_if_due(self) -> None:
        if self._heartbeat is None or self._ping is None:
            return
        if not self._heartbeat.is_due(self.beats, now=self._clock()):
            return
        try:
            self._ping()
        except BaseException as error:  # noqa: BLE001 - any network; it is tried again next time
            if self._ping_error is None:
                _log.warning(
                    "the heartbeat failed, and will be tried again: %s", type(error).__name__
                )
            self._ping_error = type(error).__name__
        else:
            self._ping_error = None
