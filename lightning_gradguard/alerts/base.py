"""What an alert is sent by.

In: nothing. Out: the protocol that a way of your own meets, and what it may raise.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.findings import Severity
from lightning_gradguard.options import check_choice

__all__ = ["Channel", "Level", "PartialError", "RefusedError", "severity_of"]

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


class PartialError(Exception):
    """An alert that got to some of its people, and to the others never will.

    It counts as sent; the text is logged once, and stands in the summary.
    """


@runtime_checkable
class Channel(Protocol):
    """Anything with this one method.

    It is called in a thread that no other channel shares, so it may take its time; what it raises
    is tried again after a while, and a channel that goes on to fail is left out for a time. After
    an error an alert may come again that was taken: ``alert.id`` tells.

    Three more things are used where a channel has them:

    ``min_severity``
        A `Severity`, or its name in small letters: what is less severe is not for this channel.
    ``secrets() -> Sequence[str]``
        Asked when training starts: texts that nobody may see, such as an address that holds a
        token, and which are then taken out of all messages and errors. It raises ``ValueError``
        where one is missing, and training does not start.
    ``connect(loggers: Sequence[Any]) -> None``
        Called when training starts with the trainer's loggers, for a channel that sends through
        one of them. It raises ``ValueError`` where there is none that it can use.

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
