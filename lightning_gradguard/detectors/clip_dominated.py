"""Clipping at nearly every step: a notice."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["ClipDominated"]

_UNCLIPPED: Final = 1.0 - 1e-3


class ClipDominated:
    """Notice that clipping decides the size of nearly every step.

    Reports ``clip_dominated``, a notice, when clipping made the gradient smaller in more than
    ``limit_share`` of the latest ``window_steps`` steps: the clip value is then a learning rate in
    disguise, and with it the gradient's size no longer matters.

    Is silent where the norm at the update was not seen.

    Costs nothing worth naming.

    Args:
        limit_share: Share of steps that counts, in ``(0, 1)``.
        window_steps: Observed steps that are looked back on.

    State:
        Which of the latest steps were clipped, and by how much.

    Example:
        >>> ClipDominated(window_steps=50).patience_steps_by_kind
        {'clip_dominated': 1}
    """

    def __init__(self, *, limit_share: float = 0.9, window_steps: int = 100) -> None:
        if not 0.0 < limit_share < 1.0:
            msg = f"`limit_share` must be in (0, 1), got {limit_share!r}."
            raise ValueError(msg)
        self.patience_steps_by_kind = {"clip_dominated": 1}
        self._limit = limit_share
        self._coefficients: deque[float] = deque(maxlen=window_steps)
        self._clipped = 0

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one notice."""
        coefficient = frame.clip_coefficient
        if coefficient is None or not frame.stepped:
            return ()
        coefficients = self._coefficients
        if len(coefficients) == coefficients.maxlen:
            self._clipped -= coefficients[0] < _UNCLIPPED
        coefficients.append(coefficient)
        self._clipped += coefficient < _UNCLIPPED
        share = self._clipped / len(coefficients)
        if len(coefficients) < (coefficients.maxlen or 0) or share <= self._limit:
            return ()
        typical = median(c for c in self._coefficients if c < _UNCLIPPED)
        return [
            Finding(
                kind="clip_dominated",
                severity=Severity.INFO,
                step=frame.step,
                epoch=frame.epoch,
                value=share,
                limit=self._limit,
                unit="share of steps",
                message=f"{share:.0%} of the last {len(self._coefficients)} steps were clipped, "
                f"typically to {typical:.2g} of their norm",
                advice="if that is not meant, a higher clip value: as it is, it acts as a learning "
                "rate.",
            )
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"coefficients": list(self._coefficients)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._coefficients = deque(state["coefficients"], maxlen=self._coefficients.maxlen)
        self._clipped = sum(c < _UNCLIPPED for c in self._coefficients)
