"""Where the training thread leaves what happened, for the threads that tell people.

In: events from the training thread, which never waits. Out: alerts for the channels. One thread
decides and watches for a stand-still, and asks no network; each channel has a thread of its own,
and so has the heartbeat, so that one that blocks holds up none of the others.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from lightning_gradguard.alerts.alert import Alert, fresh_incident
from lightning_gradguard.alerts.incidents import Incidents
from lightning_gradguard.alerts.outbox import Outbox
from lightning_gradguard.alerts.pulse import Pulse
from lightning_gradguard.alerts.watch import Watchdog
from lightning_gradguard.alerts.worker import Worker
from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity

__all__ = ["Desk"]

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
        pulse: Pings a watcher outside; None for no pings.
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
        pulse: Pulse | None = None,
        watchdog: Watchdog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._incidents, self._outboxes, self._stamp = incidents, tuple(outboxes), stamp
        self._pulse, self._watchdog, self._clock = pulse, watchdog, clock
        self.step, self.beats, self._missed = -1, 0, 0
        self._stall = ""
        self._waiting: deque[Finding | Action | Alert] = deque()
        self._process = os.getpid()
        self._senders = tuple(Worker(f"gradguard-{b.name}", b.work) for b in self._outboxes)
        self._heart = None if pulse is None else Worker("gradguard-heartbeat", pulse.work)
        self._decider = Worker("gradguard-alerts", self._work)

    def put(self, event: Finding | Action | Alert) -> None:
        """Take an event; called in the training thread."""
        if os.getpid() != self._process:
            return  # a forked child, which has no thread and must not speak for its parent
        if len(self._waiting) >= _MOST_WAITING:
            self._missed += 1
            return
        is_first = not self._waiting
        self._waiting.append(event)
        if is_first:  # otherwise it was woken before; that takes longer than all the rest
            self._decider.wake()

    def beat(self) -> None:
        """Take note that training advanced; called in the training thread."""
        self.beats += 1
        if self._pulse is not None:
            self._pulse.beats = self.beats

    def close(self, timeout: float) -> None:
        """Tell what is left, and stop; takes no longer than ``timeout`` seconds for all of it."""
        if os.getpid() != self._process:
            return
        until = time.monotonic() + timeout
        if self._heart is not None:
            self._heart.close()  # and not waited for: what it would say is that training goes on
        self._decider.close()
        self._decider.join(until)
        for sender in self._senders:
            sender.close()
        for sender in self._senders:
            sender.join(until)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What could not be told, one sentence each."""
        found = [text for box in self._outboxes for text in box.troubles]
        if self._pulse is not None and self._pulse.trouble is not None:
            found.append(self._pulse.trouble)
        if self._missed:
            found.append(f"alerts: {self._missed} events came faster than they could be handled")
        if untold := self._incidents.untold:
            found.append(f"alerts: {untold} incidents beyond `most_per_hour` were not told")
        return tuple(found)

    def _work(self, is_last: bool) -> float | None:  # noqa: FBT001 - as `Worker` calls it
        if self._waiting and not is_last:
            time.sleep(_GRACE_SECONDS)
        now = self._clock()
        events = [self._waiting.popleft() for _ in range(len(self._waiting))]
        # First what was done, so that what it was done against can tell of it.
        for event in sorted(events, key=lambda event: not isinstance(event, Action)):
            self._tell(self._judge(event, now))
        self._tell(self._incidents.tick(step=self.step, now=now))
        if is_last:
            self._tell(self._incidents.close(now=now))
            return None
        if self._watchdog is not None:
            self._tell(self._stalled(self._watchdog, now))
        return 0.0 if self._waiting else _LOOK_SECONDS

    def _judge(self, event: Finding | Action | Alert, now: float) -> Iterable[Alert]:
        if isinstance(event, Finding):
            return self._incidents.take(event, now=now)
        if isinstance(event, Alert):
            return self._incidents.admit(event, now=now)
        self._incidents.note(event)
        return ()

    def _stalled(self, dog: Watchdog, now: float) -> Iterable[Alert]:
        seen = dog.look(self.beats, now=now)
        if seen is None:
            return ()
        is_stalled = seen == "stalled"
        if is_stalled:
            self._stall = fresh_incident("stalled")
        alert = Alert(
            kind="stalled",
            state="opened" if is_stalled else "resolved",
            severity=Severity.CRITICAL,
            message=f"no batch was completed for {dog.limit_seconds:.0f} seconds"
            if is_stalled
            else "training goes on",
            incident=self._stall,
            step=self.step,
            advice="look at the data loader, the network between ranks, and the machine",
        )
        return self._incidents.admit(alert, now=now)

    def _tell(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            self._pass_on_held()
            stamped = self._stamp(alert)
            for box, sender in zip(self._outboxes, self._senders, strict=True):
                box.put(stamped)
                sender.wake()
        self._pass_on_held()

    def _pass_on_held(self) -> None:
        held = self._incidents.take_held()
        for box in self._outboxes:
            box.hold_back(held)
