"""The scalars, to any logger that Lightning knows.

In: observations. Out: one `log_metrics` call per logged step: CSV, W&B, MLflow and the like.
"""

from __future__ import annotations

from typing import Protocol

from lightning_gradguard.events import Event, Observation
from lightning_gradguard.sinks.scalars import scalars

__all__ = ["LoggerSink", "MetricsLogger"]


class MetricsLogger(Protocol):
    """The part of Lightning's logger interface that is used."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record numbers at a step."""
        ...


class LoggerSink:
    """Send the scalars of a step to a logger.

    Args:
        logger: A Lightning logger, or anything with its ``log_metrics``.

    Cost:
        Whatever the logger takes; about ten numbers per logged step.
    """

    def __init__(self, logger: MetricsLogger) -> None:
        self._logger = logger

    def emit(self, event: Event) -> None:
        """Log an observation that is due."""
        if isinstance(event, Observation) and event.is_due:
            self._logger.log_metrics(scalars(event), step=event.frame.step)
