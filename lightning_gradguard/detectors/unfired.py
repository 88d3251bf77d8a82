"""Units that are never active, seen where they should be: in what their activation puts out."""

from __future__ import annotations

from typing import Any

from lightning_gradguard.activation import Activation
from lightning_gradguard.detectors.judged_units import (
    advice_on_dead,
    hidden_activations,
    unit_phrase,
)
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.detectors.silence import Silence
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame, Mask

__all__ = ["Unfired"]

_SETTLED = 0.95
_STALL_BLOCKS = 2


class Unfired:
    """Judge whether most units of a ReLU or its like have put out nothing but zeros.

    Holds when ``limit_share`` of them did so for every sample of the batch, in
    ``patience_samples`` looks in a row, while the loss stalls. It sees what gradients of weights
    do not: units behind a layer normalisation, or of a layer that is frozen.

    Args:
        limit_share: Share of a layer's units that counts, in ``(0, 1]``.
        patience_samples: Looks in a row; runs that are not looked inside have none.
        min_units: Layers with fewer units count only when all of them are dead.

    State:
        For each unit, for how many looks it has been silent, and how many there were.
    """

    def __init__(
        self, *, limit_share: float = 0.95, patience_samples: int = 4, min_units: int = 16
    ) -> None:
        self._limit, self._patience, self._min_units = limit_share, patience_samples, min_units
        self._progress = LossProgress()
        self._silence = Silence()
        self._looks = 0
        self._found: Finding | None = None

    def update(self, frame: Frame) -> Finding | None:
        """Return a finding while the rule holds."""
        self._progress.update(frame.loss)
        seen = {k: a for k, a in hidden_activations(frame).items() if a.active is not None}
        if seen and not frame.has_nonfinite:
            self._looks += 1
            self._silence.update({k: ~a.active for k, a in seen.items() if a.active is not None})
            self._found = self._judge(frame, seen)
        return self._found if self._progress.stalls(_STALL_BLOCKS) else None

    def _judge(self, frame: Frame, seen: dict[str, Activation]) -> Finding | None:
        dead: dict[str, Mask] = {}
        for key in seen:
            counts = self._silence.of(key)
            units = counts >= self._patience
            half = counts >= (self._patience + 1) // 2
            is_settled = units.sum() >= _SETTLED * half.sum()
            is_large = units.size >= self._min_units or bool(units.all())
            if is_settled and is_large and units.mean() >= self._limit:
                dead[key] = units
        return self._finding(frame, seen, dead) if dead else None

    def _finding(self, frame: Frame, seen: dict[str, Activation], dead: dict[str, Mask]) -> Finding:
        worst = max(dead, key=lambda key: float(dead[key].mean()))
        one, units = seen[worst], dead[worst]
        born = (self._silence.of(worst) == self._looks)[units].mean() > 0.5
        return Finding(
            kind="dead",
            rule="never active",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=tuple(dict.fromkeys(seen[key].layer for key in dead)),
            value=float(units.mean()),
            limit=self._limit,
            unit="share of units",
            message=(
                f"{unit_phrase(units)} of {one.layer} have put out only zeros ({one.function}) in "
                f"{self._patience} looks in a row, "
                f"{'from the first step on' if born else 'and were alive before'}, "
                "and the loss stalls"
            ),
            advice=advice_on_dead(at_birth=bool(born)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "looks": self._looks,
            "silence": self._silence.state_dict(),
            "progress": self._progress.state_dict(),
            "found": None if self._found is None else self._found.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._looks = state["looks"]
        self._silence.load_state_dict(state["silence"])
        self._progress.load_state_dict(state["progress"])
        self._found = None if state["found"] is None else Finding.from_dict(state["found"])
