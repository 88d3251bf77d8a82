"""Alerts as lines of a log, by the standard library's `logging`.

In: alerts. Out: records of the logger ``lightning_gradguard``, at the level of their severity.
"""

from __future__ import annotations

import logging
from typing import Final

from lightning_gradguard.alerts import text
from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import Level, severity_of

__all__ = ["Log"]

_LOGGER: Final = logging.getLogger("lightning_gradguard")


class Log:
    """Write alerts to the logger ``lightning_gradguard``; resolved ones at level ``INFO``.

    Args:
        min_severity: What is less severe is not for this channel.

    Example:
        >>> Log()
        Log()
    """

    def __init__(self, *, min_severity: Level = "info") -> None:
        self.min_severity = severity_of(min_severity)

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return "Log()"

    def send(self, alert: Alert) -> None:
        """Write one record; its ``alert`` attribute is the alert as a dictionary."""
        level = logging.INFO if alert.state == "resolved" else int(alert.severity)
        words = f"{text.title(alert)}\n{text.body(alert)}"
        _LOGGER.log(level, "%s", words, extra={"alert": alert.to_dict()})
