"""What sinks are told.

In: frames, findings, actions and what the inspector knows. Out: four records. A sink looks at the
type and takes what it needs; none of them can answer back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame
from lightning_gradguard.report.summary import Summary

__all__ = ["Action", "Event", "Observation", "Summary"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """One frame, and how the run stood after it.

    Attributes:
        frame: The step.
        is_due: Whether this step is one that is written.
        severity: Worst severity among faults that go on, None when there is none.
        flagged_layers: Layers with an alarm that goes on.
        noise_scale: Gradient noise scale in batches, None where it is not known.
        overhead_ms: Mean time that the monitor itself takes per step, in milliseconds.
    """

    frame: Frame
    is_due: bool = True
    severity: Severity | None = None
    flagged_layers: tuple[str, ...] = ()
    noise_scale: float | None = None
    overhead_ms: float = float("nan")


Event: TypeAlias = Observation | Finding | Action | Summary
"""Everything a sink may be given."""
