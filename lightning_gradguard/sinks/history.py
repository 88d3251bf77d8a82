"""Everything, to the run's history file.

In: events. Out: records for the writer's thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_gradguard.audit import Action
from lightning_gradguard.events import Event, Observation
from lightning_gradguard.findings import Finding
from lightning_gradguard.history.storage import Entry
from lightning_gradguard.history.writer import Writer
from lightning_gradguard.report.summary import Summary

__all__ = ["HistorySink"]


class HistorySink:
    """Write every step, finding and action to one SQLite file.

    Args:
        path: The file; one that is there is continued as a new attempt.
        about: What is known of this attempt, as JSON types.
        meta: What is known of the run, as JSON types.

    Cost:
        Microseconds per step in the training thread; the rest is done by a thread of its own.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sink = HistorySink(Path(folder, "gradguard", "history.sqlite"))
        ...     sink.close("finished")
        ...     sink.path.exists()
        True
    """

    def __init__(
        self,
        path: Path | str,
        about: dict[str, Any] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self._said: dict[str, Any] = {}
        self._writer = Writer(self.path, about=about, meta=meta)

    def emit(self, event: Event) -> None:
        """Take one event; raises what went wrong in the background."""
        if isinstance(event, Observation):
            numbers = {
                "layers_flagged": float(len(event.flagged_layers)),
                "severity": float(event.severity or 0),
                "overhead_ms": event.overhead_ms,
            }
            if event.noise_scale is not None:
                numbers["noise_scale"] = event.noise_scale
            self._writer.add(Entry(event.frame, numbers))
        elif isinstance(event, (Finding, Action)):
            self._writer.add(event)
        elif isinstance(event, Summary):
            self._said = {
                "summary": str(event),
                "stopped": event.stopped,
                "unchecked": list(event.unchecked),
                "amp_overflows": event.amp_overflows,
            }

    def close(self, finished: str | None = None) -> None:
        """Commit the rest and say how the run ended.

        Args:
            finished: ``"finished"``, ``"exception"``, ``"interrupted"``, or None for not known.
        """
        self._writer.close(finished, **self._said)
