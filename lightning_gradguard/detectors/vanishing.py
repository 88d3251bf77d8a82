"""Gradients that shrink on the way to the early layers or the early time steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_gradguard.detectors.fading import Fading
from lightning_gradguard.detectors.forgetting import Forgetting
from lightning_gradguard.detectors.shallow import Shallow
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame

__all__ = ["Vanishing"]


class Vanishing:
    """Find early layers or early time steps that get next to no gradient.

    Reports ``vanishing`` by three rules, the first that holds: over depth (`Shallow`), late in a
    run (`Fading`), and over time steps (`Forgetting`).

    Is silent when all layers shrink together with the loss (convergence, a schedule's end, a small
    loss), when the update still moves the weights (Adam divides the scale out), during warm-up,
    and about biases, norm layers, embeddings and frozen weights.

    Costs a few operations on vectors of one number per layer.

    Args:
        depth: Rule over depth; None takes ``Shallow()``.
        late: Rule for a gradient that fades in mid-run; None takes ``Fading()``.
        time: Rule over time steps; None takes ``Forgetting()``.
        patience_steps: Observed steps in a row before a finding is reported.

    State:
        That of the three rules.

    Example:
        >>> Vanishing(depth=Shallow(limit_decades=3.0)).patience_steps_by_kind
        {'vanishing': 10}
    """

    def __init__(
        self,
        *,
        depth: Shallow | None = None,
        late: Fading | None = None,
        time: Forgetting | None = None,
        patience_steps: int = 10,
    ) -> None:
        self.patience_steps_by_kind = {"vanishing": patience_steps}
        self._rules = (depth or Shallow(), late or Fading(), time or Forgetting())

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding."""
        found = [rule.update(frame) for rule in self._rules]
        return [finding for finding in found if finding is not None][:1]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {type(rule).__name__: rule.state_dict() for rule in self._rules}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        for rule in self._rules:
            rule.load_state_dict(state[type(rule).__name__])
