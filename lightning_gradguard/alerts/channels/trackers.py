"""Alerts through the trackers that a training logs to anyway.

In: alerts, and the trainer's own loggers, known by what they can do. Out: ``wandb.alert``, or tags
of an MLflow run. Needs neither package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lightning_gradguard.alerts import text
from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import Level, severity_of
from lightning_gradguard.findings import Severity

__all__ = ["MLflow", "WandB"]

_LEVELS: Final = {
    Severity.INFO: "INFO",
    Severity.WARNING: "WARN",
    Severity.ERROR: "ERROR",
    Severity.CRITICAL: "ERROR",
}


class WandB:
    """Send alerts by ``alert`` of the run of the trainer's `WandbLogger`, which passes them on.

    Args:
        min_severity: What is less severe is not for this channel.

    Example:
        >>> WandB()
        WandB()
    """

    def __init__(self, *, min_severity: Level = "info") -> None:
        self.min_severity = severity_of(min_severity)
        self._runs: list[Any] = []

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return "WandB()"

    def connect(self, loggers: Sequence[Any]) -> None:
        """Find the runs of the trainer's loggers.

        Raises:
            ValueError: None of them can send an alert.
        """
        found = [getattr(logger, "experiment", None) for logger in loggers]
        self._runs = [run for run in found if callable(getattr(run, "alert", None))]
        if not self._runs:
            msg = "`WandB` needs a WandbLogger among the trainer's loggers, and there is none."
            raise ValueError(msg)

    def send(self, alert: Alert) -> None:
        """Send one alert."""
        level = "INFO" if alert.state == "resolved" else _LEVELS[alert.severity]
        title, words = text.for_chat(text.title(alert)), text.for_chat(text.body(alert))
        for run in self._runs:
            run.alert(title=title[:64], text=words, level=level)


class MLflow:
    """Set tags of the run of the trainer's `MLFlowLogger`.

    ``gradguard.status`` is ``"healthy"`` or the worst incident that goes on, and
    ``gradguard.alert.<kind>`` what was said last of each kind.

    Args:
        min_severity: What is less severe is not for this channel.

    Example:
        >>> MLflow()
        MLflow()
    """

    def __init__(self, *, min_severity: Level = "info") -> None:
        self.min_severity = severity_of(min_severity)
        self._places: list[tuple[Any, str]] = []
        self._open: dict[str, Alert] = {}

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return "MLflow()"

    def connect(self, loggers: Sequence[Any]) -> None:
        """Find the runs of the trainer's loggers.

        Raises:
            ValueError: None of them can set a tag.
        """
        self._open.clear()
        self._places = [
            (logger.experiment, logger.run_id)
            for logger in loggers
            if hasattr(logger, "run_id") and callable(getattr(logger.experiment, "set_tag", None))
        ]
        if not self._places:
            msg = "`MLflow` needs an MLFlowLogger among the trainer's loggers, and there is none."
            raise ValueError(msg)

    def send(self, alert: Alert) -> None:
        """Set the tags."""
        self._open.pop(alert.incident, None)
        if alert.state != "resolved":
            self._open[alert.incident] = alert
        worst = max(self._open.values(), key=lambda one: one.severity, default=None)
        status = "healthy" if worst is None else f"{worst.severity.name.lower()}: {worst.kind}"
        for client, run_id in self._places:
            client.set_tag(run_id, f"gradguard.alert.{alert.kind}", text.title(alert))
            client.set_tag(run_id, "gradguard.status", status)
