"""Updates that do not add up: weights that come back to where they were."""

from __future__ import annotations

from collections import deque
from typing import Any, Final
from zlib import crc32

import numpy as np

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Undone"]

_REMEMBERED: Final = 256
"""Steps after which weights that come back are no longer recognised."""


class Undone:
    """Judge whether the norms of all layers were exactly the same before.

    Holds when the weights came back to what they were ``times`` times, although updates of ordinary
    size lie in between, and the loss has hardly moved. No training does so by chance: the norms
    are compared to the last bit.

    Args:
        times: Returns that count.
        min_update_ratio: Relative update below which rounding may leave the norms as they are.

    State:
        A checksum of the norms of recent steps, and how often they came back.
    """

    def __init__(self, *, times: int = 5, min_update_ratio: float = 1e-5) -> None:
        self._times = int(positive("times", times))
        self._min_update_ratio = positive("min_update_ratio", min_update_ratio)
        self._seen: deque[int] = deque(maxlen=_REMEMBERED)
        self._returns = 0
        self._moved = False

    def update(self, frame: Frame, progress: LossProgress) -> Finding | None:
        """Return a finding while the rule holds."""
        now = crc32(frame.param_norm.tobytes())
        if self._moved and now in self._seen:
            self._returns += 1
        self._seen.append(now)
        ratio = frame.update_ratio
        self._moved = float(np.nanmax(ratio, initial=0.0)) >= self._min_update_ratio
        if self._returns < self._times or not progress.never_moved(tolerance=0.2):
            return None
        return Finding(
            kind="not_learning",
            rule="undone",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            value=float(self._returns),
            limit=float(self._times),
            unit="returns",
            message=f"the weights came back to what they were {self._returns} times, although "
            "they are updated",
            advice="look for what puts old weights back after a step: a callback, a "
            "`load_state_dict()`, an average that is swapped in.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"seen": list(self._seen), "returns": self._returns, "moved": self._moved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._seen = deque(state["seen"], maxlen=_REMEMBERED)
        self._returns, self._moved = state["returns"], state["moved"]
