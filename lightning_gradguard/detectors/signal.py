"""The gradient with respect to what layers put out: the signal itself on its way to the input.

In: frames, some of which were looked inside. Out: how much of the signal is lost, and in words. No
shape of a parameter blurs it, and no small input: a weight's gradient is the product of this signal
with what the layer was given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_gradguard.detectors.depth import middle
from lightning_gradguard.frame import Frame, Vector

__all__ = ["Signal"]


class Signal:
    """Remember the latest norms of layers' outputs' gradients.

    Example:
        >>> signal = Signal()
        >>> signal.lost(["a", "b"]) is None
        True

    State:
        The latest norms.
    """

    def __init__(self) -> None:
        self._norms: dict[str, float] = {}

    def update(self, frame: Frame) -> None:
        """Take note of a step that was looked inside."""
        if frame.output_grad_norms and not frame.has_nonfinite:
            self._norms = dict(frame.output_grad_norms)

    def lost(self, layers: Sequence[str]) -> float | None:
        """Return how many factors of ten the signal loses over layers, in depth order.

        Args:
            layers: From the input to the loss.

        Returns:
            Median over the quarter nearest to the loss against that of the first; negative when it
            grows. None where steps were not looked inside, or a layer was not called.
        """
        known = [self._norms.get(layer.removesuffix(".weight"), math.nan) for layer in layers]
        norms: Vector = np.array([norm for norm in known if norm > 0.0])
        if len(norms) < max(2, len(layers) // 2):
            return None
        decades, quarter = np.log10(norms), max(1, len(norms) // 4)
        return middle(decades[-quarter:]) - middle(decades[:quarter])

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"norms": dict(self._norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._norms = dict(state["norms"])
