"""Updates without the part that only shrinks the weights.

In: frames. Out: how far gradients moved each layer. Weight decay moves weights, too, and by the
same share in all layers: a layer whose gradient has vanished looks busy while it withers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_gradguard.frame import Frame, Vector

__all__ = ["DrivenUpdates"]


class DrivenUpdates:
    """Take the shrinking out of update ratios.

    A step that shrank all weights by a share ``s`` moved them by ``s`` of their size; what is left
    of the update is at a right angle to that. It is known one step later, from the norms.

    Example:
        >>> DrivenUpdates().state_dict()
        {'step': -2, 'layers': [], 'norm': [], 'ratio': []}
    """

    def __init__(self) -> None:
        self._past = _Norms(-2, (), np.empty(0), np.empty(0))
        self._now = self._past

    def remember(self, frame: Frame) -> None:
        """Take in a step."""
        self._past = self._now
        self._now = _Norms(
            frame.step, frame.layers, frame.weight_param_norm, frame.weight_update_ratio
        )

    def ratio(self) -> Vector:
        """Return the update ratio per layer of the latest step of which this is known.

        Of steps that were left out, the shrinking is taken to have been the same in each. Where the
        layers are others than before, it is the whole update of the latest step.
        """
        past, now = self._past, self._now
        steps = now.step - past.step
        if past.step < 0 or steps < 1 or past.layers != now.layers:
            return now.ratio
        with np.errstate(all="ignore"):
            shrunk = 1.0 - (now.norm / past.norm) ** (1.0 / steps)
            left = past.ratio**2 - shrunk**2
            # Where nearly all of it was shrinking, the rest is rounding.
            rest = np.sqrt(np.maximum(left - 0.01 * past.ratio**2, 0.0))
            is_shrinking = (shrunk > 0.0) & (left < 0.5 * past.ratio**2)
        return np.where(is_shrinking, rest, now.ratio)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        now = self._now
        numbers = {"norm": _listed(now.norm), "ratio": _listed(now.ratio)}
        return {"step": now.step, "layers": list(now.layers), **numbers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        norm, ratio = (
            np.array([math.nan if x is None else x for x in state[name]], dtype=np.float64)
            for name in ("norm", "ratio")
        )
        self._now = _Norms(state["step"], tuple(state["layers"]), norm, ratio)


@dataclass(frozen=True, eq=False)
class _Norms:
    step: int
    layers: tuple[str, ...]
    norm: Vector
    ratio: Vector


def _listed(numbers: Vector) -> list[float | None]:
    return [x if np.isfinite(x) else None for x in numbers.tolist()]
