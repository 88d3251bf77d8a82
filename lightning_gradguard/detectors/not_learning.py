"""A loss that does not move although it should."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lightning_gradguard.detectors.cut_off import CutOff
from lightning_gradguard.detectors.flat import Flat
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.detectors.slow import Slow
from lightning_gradguard.detectors.stale import Stale
from lightning_gradguard.detectors.undone import Undone
from lightning_gradguard.detectors.withering import Withering
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame

__all__ = ["NotLearning"]


class NotLearning:
    """Find training that goes nowhere.

    Reports ``not_learning`` of a loss that does not move by the first of these rules that holds:
    layers stand still or crawl (`Slow`), gradients do not reach them (`CutOff`), steps are undone
    (`Undone`), weight decay eats the weights (`Withering`), the optimizer holds weights that nobody
    uses (`Stale`). And, as a notice only, when the loss
    alone stays where it was (`Flat`).

    Is silent while the learning rate rises, as in a warm-up, and, but for `Stale` and what is cut
    off from the first layers on, once the loss has fallen. What stands still because of vanishing
    gradients is told apart by `Vanishing`, which looks at depth and time.

    Costs a median of ten numbers per step.

    Args:
        slow: Rule for updates that are too small; None takes ``Slow()``.
        cut_off: Rule for layers without gradient; None takes ``CutOff()``.
        undone: Rule for weights that are put back; None takes ``Undone()``.
        withering: Rule for weights that shrink to nothing; None takes ``Withering()``.
        stale: Rule for weights that nobody uses; None takes ``Stale()``.
        flat: Rule for the loss alone; None takes ``Flat()``.
        patience_steps: Observed steps in a row before a finding is reported.

    State:
        That of the rules, the course of the loss, and the latest learning rate.

    Example:
        >>> NotLearning(patience_steps=40).patience_steps_by_kind
        {'not_learning': 40}
    """

    def __init__(
        self,
        *,
        slow: Slow | None = None,
        cut_off: CutOff | None = None,
        undone: Undone | None = None,
        withering: Withering | None = None,
        stale: Stale | None = None,
        flat: Flat | None = None,
        patience_steps: int = 10,
    ) -> None:
        self.patience_steps_by_kind = {"not_learning": patience_steps}
        self._rules = (
            slow or Slow(),
            cut_off or CutOff(),
            undone or Undone(),
            withering or Withering(),
            flat or Flat(),
        )
        self._stale = stale or Stale()
        self._progress = LossProgress()
        self._rate = 0.0
        self._had_rate = False
        self._risen_at = 0

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding."""
        self._progress.update(frame.loss)
        if frame.has_nonfinite or not frame.stepped:
            return ()
        if self._is_warming_up(frame):
            return ()
        found = [self._stale.update(frame)]
        found += [rule.update(frame, self._progress) for rule in self._rules]
        return [finding for finding in found if finding is not None][:1]

    def _is_warming_up(self, frame: Frame) -> bool:
        """Whether the rate rose within the last steps, or was zero from the very first."""
        rate = max((r for r in frame.learning_rates if not math.isnan(r)), default=math.nan)
        if math.isnan(rate):
            return False
        if rate > self._rate and self._had_rate:
            self._risen_at = frame.step
        self._rate, self._had_rate = rate, self._had_rate or rate > 0.0
        return not self._had_rate or (0 < self._risen_at > frame.step - 20)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "rules": {type(rule).__name__: rule.state_dict() for rule in self._rules},
            "stale": self._stale.state_dict(),
            "progress": self._progress.state_dict(),
            "rate": self._rate,
            "had_rate": self._had_rate,
            "risen_at": self._risen_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        for rule in self._rules:
            rule.load_state_dict(state["rules"][type(rule).__name__])
        self._stale.load_state_dict(state["stale"])
        self._progress.load_state_dict(state["progress"])
        self._rate, self._had_rate = state["rate"], state["had_rate"]
        self._risen_at = state["risen_at"]
