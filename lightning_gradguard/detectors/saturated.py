"""Squashing units at their flat end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from lightning_gradguard.activation import Activation
from lightning_gradguard.detectors.judged_units import hidden_activations, unit_phrase
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame, Mask

__all__ = ["Saturated"]

_NEARLY_ALWAYS: Final = 0.9
"""Share of a batch for which a unit must be near an end."""
_STALL_BLOCKS: Final = 2


class Saturated:
    """Find squashing layers most of whose units are at a flat end, where no gradient passes.

    Reports ``saturated`` when ``limit_share`` of the units of a sigmoid, tanh or their like were
    within two hundredths of an end for nine tenths of the batch, in ``patience_samples`` looks
    in a row, while the loss stalls.

    Is silent about what follows the last layer, whose units are answers; about softmax, a choice;
    about gates, which are meant to shut; and in runs that are not looked inside.

    Costs one comparison per unit on steps that are looked inside.

    Args:
        limit_share: Share of a layer's units that counts, in ``(0, 1]``.
        patience_samples: Looks in a row.

    State:
        For each function, since how many looks it holds, and whether it held at the first.

    Example:
        >>> Saturated(limit_share=0.9).patience_steps_by_kind
        {'saturated': 1}
    """

    def __init__(self, *, limit_share: float = 0.5, patience_samples: int = 3) -> None:
        if not 0.0 < limit_share <= 1.0:
            msg = f"`limit_share` must be in (0, 1], got {limit_share!r}."
            raise ValueError(msg)
        if patience_samples < 1:
            msg = f"`patience_samples` must be at least 1, got {patience_samples!r}."
            raise ValueError(msg)
        self.patience_steps_by_kind = {"saturated": 1}
        self._limit, self._patience = limit_share, patience_samples
        self._progress = LossProgress()
        self._looks = 0
        self._held: dict[str, int] = {}
        self._found: Finding | None = None

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding, of all functions that are saturated."""
        self._progress.update(frame.loss)
        if frame.activations and not frame.has_nonfinite:
            self._looks += 1
            self._found = self._judge(frame)
        if self._found is None or not self._progress.stalls(_STALL_BLOCKS):
            return ()
        return [replace(self._found, step=frame.step, epoch=frame.epoch)]

    def _judge(self, frame: Frame) -> Finding | None:
        found: dict[str, tuple[Activation, Mask]] = {}
        for key, one in hidden_activations(frame).items():
            if one.saturated is None:
                continue
            units = one.saturated >= _NEARLY_ALWAYS
            held = self._held.get(key, 0) + 1 if units.mean() >= self._limit else 0
            self._held[key] = held
            if held >= self._patience:
                found[key] = one, units
        return self._finding(frame, found) if found else None

    def _finding(self, frame: Frame, found: dict[str, tuple[Activation, Mask]]) -> Finding:
        worst = max(found, key=lambda key: float(found[key][1].mean()))
        one, units = found[worst]
        at_birth = self._held[worst] == self._looks
        return Finding(
            kind="saturated",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=tuple(dict.fromkeys(each.layer for each, _ in found.values())),
            value=float(units.mean()),
            limit=self._limit,
            unit="share of units",
            message=(
                f"{unit_phrase(units)} of {one.layer} are at a flat end of {one.function} in "
                f"{self._held[worst]} looks in a row, "
                f"{'since the first step' if at_birth else 'and were not before'}, "
                "and the loss stalls"
            ),
            advice=(
                "scaled inputs and smaller initial weights (Xavier), or normalisation before the "
                f"{one.function}."
                if at_birth
                else f"a lower learning rate, or normalisation before the {one.function}."
            ),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "looks": self._looks,
            "held": dict(self._held),
            "progress": self._progress.state_dict(),
            "found": None if self._found is None else self._found.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._looks, self._held = state["looks"], dict(state["held"])
        self._progress.load_state_dict(state["progress"])
        self._found = None if state["found"] is None else Finding.from_dict(state["found"])
