"""Gradients that grow until a step destroys the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_gradguard.detectors.growth import Growth
from lightning_gradguard.detectors.inward import Inward
from lightning_gradguard.detectors.oversized import Oversized
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame

__all__ = ["Exploding"]


class Exploding:
    """Find gradients that are too large for the weights they change.

    Reports ``exploding`` by three rules, the most direct evidence first: an update as large as the
    weights (`Oversized`), gradients that grow on their way to the first layers or time steps
    (`Inward`), and a global norm far above its own past (`Growth`).

    Is silent when clipping or a small rate keeps the applied update in bounds, however large
    the gradient, about weights that start at zero, and about a single outlier.

    Costs a few operations on vectors of one number per layer.

    Args:
        update: Rule for single updates; None takes ``Oversized()``.
        inward: Rule over depth and time; None takes ``Inward()``.
        growth: Rule for the global norm; None takes ``Growth()``.

    State:
        That of the three rules.

    Example:
        >>> Exploding(update=Oversized(max_update_ratio=0.5)).patience_steps_by_kind
        {'exploding': 1}
    """

    def __init__(
        self,
        *,
        update: Oversized | None = None,
        inward: Inward | None = None,
        growth: Growth | None = None,
    ) -> None:
        self.patience_steps_by_kind = {"exploding": 1}
        self._rules = (update or Oversized(), inward or Inward(), growth or Growth())

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding."""
        if frame.has_nonfinite:
            return ()  # NonFinite speaks about these
        found = [rule.update(frame) for rule in self._rules]
        return [finding for finding in found if finding is not None][:1]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {type(rule).__name__: rule.state_dict() for rule in self._rules}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        for rule in self._rules:
            rule.load_state_dict(state[type(rule).__name__])
