"""The scalars, to any logger that Lightning knows.

In: observations. Out: one `log_metrics` call per logged step: CSV, W&B, MLflow and the like.
"""

from __future__ import annotations

from typing import Protocol

from lightning_gradguard.events import Event, Observation
from lightning_gradguard.sinks.cadence import is_due
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
        every_n_steps: Log one optimizer step in so many; ``>= 1``.

    Cost:
        Whatever the logger takes; about ten numbers per logged step.
    """

    def __init__(self, logger: MetricsLogger, *, every_n_steps: int = 50) -> None:
        self._logger = logger
        self._every_n_steps = every_n_steps

    def emit(self, event: Event) -> None:
        """Log an observation that is due."""
        if isinstance(event, Observation) and is_due(event.frame.step, self._every_n_steps):
            self._logger.log_metrics(scalars(event), step=event.frame.step)
