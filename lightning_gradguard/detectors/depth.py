"""How gradients change over depth: what `Vanishing` and `Exploding` both look at.

In: a frame. Out: one number per layer that has a weight matrix, in depth order. Gradient norms
are taken relative to the norm of the weights, since that is what separates failing runs from
healthy ones; absolute norms of healthy runs span nine decades. Biases and norm layers are left
out: a bias before a batch norm has no gradient in the healthiest of models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_gradguard.frame import Frame, Vector

__all__ = ["DepthProfile", "depth_profile"]


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """Weight matrices from the input to the loss.

    Attributes:
        layers: Their layers, in depth order.
        decades: log10 of gradient norm over weight norm; minus infinity for a zero gradient.
        update_ratio: Applied update over weights.
    """

    layers: tuple[str, ...]
    decades: Vector
    update_ratio: Vector

    @property
    def near_loss(self) -> float:
        """Median of ``decades`` over the quarter of the layers nearest to the loss."""
        quarter = max(1, len(self.layers) // 4)
        return float(np.median(self.decades[-quarter:]))


def depth_profile(frame: Frame) -> DepthProfile | None:
    """Return the profile, or None with fewer than three weight layers or bad numbers.

    Layers whose gradient was not measured, or whose weights are all zero, are left out.
    """
    ratio = frame.weight_grad_ratio
    keep = ~np.isnan(ratio)
    if frame.has_nonfinite or keep.sum() < 3:
        return None
    with np.errstate(divide="ignore"):
        decades = np.log10(ratio[keep])
    layers = tuple(layer for layer, kept in zip(frame.layers, keep, strict=True) if kept)
    return DepthProfile(layers, decades, frame.weight_update_ratio[keep])
