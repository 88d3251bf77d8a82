"""A schedule that moves on while the optimizer does not: a notice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["SchedulerDrift"]


class SchedulerDrift:
    """Notice steps that a learning-rate schedule counted and the optimizer did not make.

    Reports ``scheduler_drift``, a notice, when the rate changed after a step that a gradient scaler
    had refused, for ``limit_steps`` steps in all: the schedule is that far ahead.

    Is silent while the rate is constant, and about the few steps that a scaler refuses while it
    finds its scale.

    Costs nothing worth naming.

    Args:
        limit_steps: Steps by which the schedule may be ahead.

    State:
        How far it is ahead, and the latest rates.

    Example:
        >>> SchedulerDrift().patience_steps_by_kind
        {'scheduler_drift': 1}
    """

    def __init__(self, *, limit_steps: int = 20) -> None:
        if limit_steps < 1:
            msg = f"`limit_steps` must be at least 1, got {limit_steps!r}."
            raise ValueError(msg)
        self.patience_steps_by_kind = {"scheduler_drift": 1}
        self._limit = limit_steps
        self._drift = 0
        self._refused = False
        self._rates: tuple[float, ...] = ()

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one notice."""
        rates = tuple(rate for rate in frame.learning_rates if not math.isnan(rate))
        has_moved = bool(self._rates) and rates != self._rates
        grew = self._refused and has_moved
        self._drift += grew
        self._rates, self._refused = rates, not frame.stepped
        if not grew or self._drift < self._limit:
            return ()
        return [
            Finding(
                kind="scheduler_drift",
                severity=Severity.INFO,
                step=frame.step,
                epoch=frame.epoch,
                value=self._drift,
                limit=self._limit,
                unit="steps",
                message=f"the learning-rate schedule moved on at {self._drift} steps that the "
                "optimizer did not make",
                advice="step the scheduler only after a step that was made, or give it more steps.",
            )
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"drift": self._drift, "refused": self._refused, "rates": list(self._rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._drift, self._refused = state["drift"], state["refused"]
        self._rates = tuple(state["rates"])
