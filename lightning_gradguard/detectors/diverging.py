"""A loss that runs away."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.depth import judged
from lightning_gradguard.detectors.driven import DrivenUpdates
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame, Vector

__all__ = ["Diverging"]


class Diverging:
    """Find a loss that gets worse because of the steps that are taken.

    Reports ``diverging`` by three rules. *Runs away*: the level of the latest ten losses lies above
    the highest of the first ten by more than ``excess`` times that, and does not come back, while
    some layer moves by more than ``min_update_ratio`` per step or all have outgrown their start.
    *Swings*: every layer but a few moves by more than that, for twenty steps, and the loss is no
    better than at the start, or worse by ``excess`` than it was. *Without bound*: a loss below
    zero falls as fast as ever while weights or gradients grow, or far beyond its start.

    Is silent while updates are of ordinary size: a harder task, a second term that is turned on
    or an adversary raise a loss, too. A non-finite loss is for `NonFinite`.

    Costs a median of ten numbers per step.

    Args:
        excess: Rise above the start that counts, relative to it.
        min_update_ratio: Relative update per step below which a rate is not to blame.
        growth: Times that the weights must have outgrown their start to blame them instead.
        patience_steps: Observed steps in a row before a finding is reported.

    State:
        The course of the loss, its last levels, and how large the weights were.

    Example:
        >>> Diverging().patience_steps_by_kind
        {'diverging': 10}
    """

    def __init__(
        self,
        *,
        excess: float = 0.5,
        min_update_ratio: float = 0.05,
        growth: float = 2.0,
        patience_steps: int = 10,
    ) -> None:
        self.patience_steps_by_kind = {"diverging": patience_steps}
        self._excess = positive("excess", excess)
        self._min_update_ratio = positive("min_update_ratio", min_update_ratio)
        self._growth = positive("growth", growth)
        self._progress = LossProgress()
        self._driven = DrivenUpdates()
        self._levels: deque[float] = deque(maxlen=41)
        self._ratios: deque[float] = deque(maxlen=20)
        self._norms: deque[float] = deque(maxlen=20)
        self._first_norm: float | None = None
        self._first_grad_norm: float | None = None
        self._which: list[int] = []

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding."""
        self._progress.update(frame.loss)
        self._driven.remember(frame)
        ratios = self._ratios_of(frame)
        if frame.has_nonfinite or ratios.size == 0:
            return ()
        norm = float(np.sqrt(np.nansum(frame.weight_param_norm**2)))
        which = np.flatnonzero(np.isfinite(frame.weight_param_norm)).tolist()
        if self._first_norm is None or which != self._which:  # what thaws is no growth
            self._first_norm, self._first_grad_norm = norm, frame.global_grad_norm
            self._which = which
        if math.isnan(self._progress.recent):
            return ()
        self._levels.append(self._progress.recent)
        self._ratios.append(float(ratios[len(ratios) // 4]))
        self._norms.append(norm)
        # Weights double in many a healthy run, but not while they grow by a tenth in 20 steps.
        has_grown = norm > max(self._growth * self._first_norm, 1.1 * self._norms[0]) > 0.0
        found = (
            self._runs_away(frame, float(ratios[-1]), has_grown=has_grown)
            or self._swings(frame)
            or self._has_no_bound(frame, has_grown=has_grown)
        )
        return () if found is None else (found,)

    def _ratios_of(self, frame: Frame) -> Vector:
        """Return how far layers were moved, in order, without weight decay where that matters."""
        ratio = frame.weight_update_ratio
        if np.nanmax(ratio, initial=0.0) >= self._min_update_ratio:
            ratio = self._driven.ratio()
        return np.sort(ratio[np.isfinite(ratio) & judged(frame)])

    def _runs_away(self, frame: Frame, largest: float, *, has_grown: bool) -> Finding | None:
        progress = self._progress
        start = progress.start_high
        noise = 0.0 if math.isnan(progress.noise) else progress.noise
        limit = start + max(self._excess * abs(start), 4.0 * noise)
        comes_back = progress.recent < 0.8 * max(list(self._levels)[-20:])
        if progress.recent <= limit or comes_back:
            return None
        if largest < self._min_update_ratio and not has_grown:
            return None
        return self._finding(
            frame,
            "runs away",
            progress.recent,
            limit,
            f"the loss is about {progress.recent:.3g}, above the {start:.3g} where it started",
        )

    def _swings(self, frame: Frame) -> Finding | None:
        progress = self._progress
        if len(self._ratios) < 20 or min(self._ratios) < self._min_update_ratio:
            return None
        if not progress.never_moved(steps=40) and not progress.is_worse(excess=self._excess):
            return None
        value = float(np.median(self._ratios))
        return self._finding(
            frame,
            "swings",
            value,
            self._min_update_ratio,
            f"each step moves most layers by {value:.1e} of their size or more, and the loss of "
            f"about {progress.recent:.3g} is no better for it",
        )

    def _has_no_bound(self, frame: Frame, *, has_grown: bool) -> Finding | None:
        progress, levels = self._progress, self._levels
        if len(levels) < 41 or progress.recent > progress.best:
            return None
        scale = max(abs(progress.start), abs(progress.start_high), 4.0 * progress.noise)
        limit = -3.0 * scale
        # A likelihood falls, too, but ever more slowly: never as fast as over the whole run.
        fall, before = levels[20] - levels[-1], levels[0] - levels[20]
        average = 20.0 * (progress.start - progress.recent) / progress.steps
        is_falling = fall >= 0.9 * max(before, average) > 0.0
        grows = (
            has_grown
            or progress.recent < 10.0 * limit
            or frame.global_grad_norm > 5.0 * (self._first_grad_norm or math.inf)
        )
        if not grows or progress.recent >= limit or not is_falling:
            return None
        return self._finding(
            frame,
            "without bound",
            progress.recent,
            limit,
            f"the loss is about {progress.recent:.3g} and falls as fast as ever",
        )

    def _finding(
        self, frame: Frame, rule: str, value: float, limit: float, message: str
    ) -> Finding:
        is_bound = rule == "without bound"
        return Finding(
            kind="diverging",
            rule=rule,
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            value=value,
            limit=limit,
            unit="update ratio" if rule == "swings" else "loss",
            message=message,
            advice="look at the sign of the loss: nothing holds it."
            if is_bound
            else "a lower learning rate, nearly always; else warm-up, or look at the sign of the "
            "loss.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "progress": self._progress.state_dict(),
            "driven": self._driven.state_dict(),
            "levels": list(self._levels),
            "ratios": list(self._ratios),
            "norms": list(self._norms),
            "first_norm": self._first_norm,
            "first_grad_norm": self._first_grad_norm,
            "which": self._which,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._progress.load_state_dict(state["progress"])
        self._driven.load_state_dict(state["driven"])
        self._levels = deque(state["levels"], maxlen=41)
        self._ratios = deque(state["ratios"], maxlen=20)
        self._norms = deque(state["norms"], maxlen=20)
        self._first_norm = state["first_norm"]
        self._first_grad_norm, self._which = state["first_grad_norm"], list(state["which"])
