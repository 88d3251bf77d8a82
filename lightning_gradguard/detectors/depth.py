"""How gradients change over depth: what `Vanishing` and `Exploding` both look at.

In: a frame. Out: one number per layer that has a weight matrix, in depth order. Gradient norms
are taken relative to the norm of the weights, since that is what separates failing runs from
healthy ones; absolute norms of healthy runs span nine decades. Biases and norm layers are left
out: a bias before a batch norm has no gradient in the healthiest of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from lightning_gradguard.frame import Frame, Vector

__all__ = ["DepthProfile", "depth_profile"]


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """Weight matrices from the input to the loss.

    Attributes:
        all_layers: The layers of the frame, in depth order.
        index: Which of them these are.
        decades: log10 of gradient norm over weight norm; minus infinity for a zero gradient.
        update_ratio: Applied update over weights.
    """

    all_layers: tuple[str, ...]
    index: npt.NDArray[np.intp]
    decades: Vector
    update_ratio: Vector

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in depth order."""
        return tuple(self.all_layers[index] for index in self.index)

    @cached_property
    def near_loss(self) -> float:
        """Median of ``decades`` over the quarter of the layers nearest to the loss."""
        quarter = max(1, len(self.decades) // 4)
        return float(np.median(self.decades[-quarter:]))


@lru_cache(maxsize=1)  # several detectors ask about the same frame
def depth_profile(frame: Frame) -> DepthProfile | None:
    """Return the profile, or None with fewer than three weight layers or bad numbers.

    Layers whose gradient was not measured, or whose weights are all zero, are left out.
    """
    ratio = frame.weight_grad_ratio
    index = np.flatnonzero(~np.isnan(ratio))
    if frame.has_nonfinite or index.size < 3:
        return None
    with np.errstate(divide="ignore"):
        decades = np.log10(ratio[index])
    return DepthProfile(frame.layers, index, decades, frame.weight_update_ratio[index])
