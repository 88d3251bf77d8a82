"""An optimizer whose parameters are not those that the model uses."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from lightning_gradguard.checks import positive
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Stale"]

_ADVICE: Final = (
    "see whether the model got new layers after the optimizer was made, which then holds weights "
    "that nobody uses; or whether gradients are cut off."
)


class Stale:
    """Judge whether an optimizer has parameters to no purpose.

    Holds when none of them ever had a gradient, or when some that the model does not even have
    never had one.

    Args:
        warmup_steps: Observed steps before anything is said.

    State:
        Steps seen, and whether there ever was a gradient.
    """

    def __init__(self, *, warmup_steps: int = 20) -> None:
        self._warmup = int(positive("warmup_steps", warmup_steps))
        self._seen = 0
        self._had_any = False

    def update(self, frame: Frame) -> Finding | None:
        """Return a finding while the rule holds."""
        self._seen += 1
        self._had_any |= not np.isnan(frame.grad_norm).all()
        if self._seen < self._warmup:
            return None
        whose = f"of optimizer {frame.optimizer_index}"
        if not self._had_any:
            return self._finding(frame, f"no parameter {whose} ever had a gradient", frame.layers)
        roles = zip(frame.layers, frame.roles, strict=False)
        strangers = tuple(layer for layer, role in roles if role == "foreign")
        if not strangers:
            return None
        what = f"parameters {whose} that the model does not have never had a gradient"
        return self._finding(frame, what, strangers)

    def _finding(self, frame: Frame, message: str, layers: tuple[str, ...]) -> Finding:
        return Finding(
            kind="not_learning",
            rule="stale",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=layers,
            value=float(self._seen),
            limit=float(self._warmup),
            unit="steps without gradient",
            message=message,
            advice=_ADVICE,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"seen": self._seen, "had_any": self._had_any}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._seen, self._had_any = state["seen"], state["had_any"]
