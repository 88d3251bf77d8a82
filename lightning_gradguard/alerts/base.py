"""What an alert is sent by.

In: nothing. Out: the protocol that a way of your own meets, and what it may raise.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.findings import Severity
from lightning_gradguard.options import check_choice

__all__ = ["Channel", "Level", "RefusedError", "severity_of"]

Level: TypeAlias = Literal["info", "warning", "error", "critical"]


def severity_of(level: object) -> Severity:
    """Return the severity of a name.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> severity_of("error")
        <Severity.ERROR: 40>
    """
    if isinstance(level, Severity):
        return level
    check_choice("min_severity", level, get_args(Level))
    return Severity[str(level).upper()]


class RefusedError(Exception):
    """An alert that was refused for good, so that trying again is of no use."""


@runtime_checkable
class Channel(Protocol):
    """Anything with this one method.

    It is called in a thread of its own, so it may take its time; what it raises is tried again
    after a while, and a channel that goes on to fail is left out for a time.

    Example:
        >>> class Print:
        ...     def send(self, alert):
        ...         print(alert.kind, alert.state)
        >>> isinstance(Print(), Channel)
        True
    """

    def send(self, alert: Alert) -> None:
        """Send one alert, or raise."""
        ...
