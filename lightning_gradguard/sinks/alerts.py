"""What is worth a message, to those who send it.

In: events. Out: records for the thread that tells people. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lightning_gradguard.alerts.alert import Alert, fresh_incident
from lightning_gradguard.alerts.desk import Desk
from lightning_gradguard.alerts.text import said
from lightning_gradguard.audit import Action
from lightning_gradguard.events import Event, Observation
from lightning_gradguard.findings import Finding, Severity, headline

__all__ = ["AlertSink"]

_MOST_RECENT: Final = 5


class AlertSink:
    """Hand findings and actions to a desk.

    Args:
        desk: Tells people.
        flush_seconds: How long `close` waits for messages to be sent.

    Cost:
        Microseconds per event, whatever the network does.
    """

    def __init__(self, desk: Desk, *, flush_seconds: float = 10.0) -> None:
        self._desk, self._flush_seconds = desk, flush_seconds

    @property
    def troubles(self) -> tuple[str, ...]:
        """What could not be told, one sentence each."""
        return self._desk.troubles

    def emit(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Observation):
            self._desk.step = event.frame.step
        elif isinstance(event, (Finding, Action)):
            self._desk.put(event)

    def beat(self) -> None:
        """Take note that a batch was completed."""
        self._desk.beat()

    def switched_off(self, reason: str, *, is_guard: bool) -> None:
        """Tell that watching or acting ended before the training did.

        Args:
            reason: Why.
            is_guard: Whether the run is unprotected now.
        """
        what = (
            "the guard can no longer act, and the run is unprotected"
            if is_guard
            else "nobody watches"
        )
        self._desk.put(
            Alert(
                kind="switched_off",
                state="opened",
                severity=Severity.CRITICAL if is_guard else Severity.ERROR,
                message=f"{what}: {reason}",
                incident=fresh_incident("switched_off"),
                step=self._desk.step,
                advice="the training goes on; stop it, or look at it yourself",
            )
        )

    def died(self, error: BaseException, *, is_wish: bool, alarms: Sequence[Finding] = ()) -> None:
        """Tell how a training ended that did not finish.

        Args:
            error: What ended it.
            is_wish: Whether somebody or a scheduler ended it, by a signal or a key.
            alarms: What was found before, oldest first.
        """
        if isinstance(error, KeyboardInterrupt):
            return  # whoever pressed the key knows
        kind = "interrupted" if is_wish else "exception"
        self._desk.put(
            Alert(
                kind=kind,
                state="opened",
                severity=Severity.WARNING if is_wish else Severity.CRITICAL,
                message=f"the training ended: {said(error)}",
                incident=fresh_incident(kind),
                step=self._desk.step,
                recent=tuple(map(headline, alarms[-_MOST_RECENT:])),
            )
        )

    def close(self) -> None:
        """Tell what is left; waits a bounded time."""
        self._desk.close(self._flush_seconds)
