"""From limits on norms to a decision.

In: what each segment's norm may be at most. Out: factors of at most 1. What is not finite is left
alone: a factor would only spread NaN, and dropping the step is another remedy's affair.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gradguard.remedies.base import Moment, Scale, ScaleUnits
from lightning_gradguard.remedies.segments import PER, Per, scale_by

__all__ = ["check_per", "clip_factors", "clip_to"]


def clip_factors(norms: Tensor, limits: Tensor) -> Tensor:
    """Return what brings norms down to their limits.

    Args:
        norms: Any shape; may be NaN or infinite.
        limits: The same shape; ``> 0``, may be infinite.

    Returns:
        Factors in ``(0, 1]``; 1 where nothing needs clipping or the norm is not finite.

    Example:
        >>> norms = torch.tensor([4.0, 0.5, torch.inf, torch.nan, 0.0])
        >>> clip_factors(norms, torch.ones(5)).tolist()
        [0.25, 1.0, 1.0, 1.0, 1.0]

    Source:
        Pascanu et al., "On the difficulty of training recurrent neural networks", 2013,
        algorithm 1. https://arxiv.org/abs/1211.5063
    """
    too_large = torch.isfinite(norms) & (norms > limits)
    return torch.where(too_large, limits / norms, torch.ones_like(norms))


def clip_to(
    moment: Moment, per: Per, limits: Tensor, name: str, norms: Tensor
) -> Scale | ScaleUnits:
    """Say what brings each segment's gradients down to its limit.

    Args:
        moment: The step.
        per: What a segment is.
        limits: One per segment.
        name: What asks for it.
        norms: Those of the segments.
    """
    return scale_by(moment.gradients, per, clip_factors(norms, limits.to(norms)), name, norms)


def check_per(per: str) -> None:
    """Raise ``ValueError`` unless segments of this kind exist."""
    if per not in PER:
        msg = f"`per` must be {', '.join(map(repr, PER[:-1]))} or {PER[-1]!r}, got {per!r}."
        raise ValueError(msg)
