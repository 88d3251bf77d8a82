"""Adaptive gradient clipping: each unit's gradient against its own weights.

In: gradients and weights. Out: factors per output unit. Needs no past, so it acts from the first
step on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, Moment, ScaleUnits
from lightning_gradguard.remedies.factors import clip_factors
from lightning_gradguard.remedies.gradients import weight_unit_norms

__all__ = ["AGC"]

_MATRIX_DIMS: Final = 2


class AGC:
    """Clip units whose gradient is large against their weights.

    The last layer, which makes the output, and tensors of one dimension are left alone.

    Args:
        clipping: Largest ratio of gradient norm to weight norm, lambda in the paper; ``> 0``.
        epsilon: Weight norms count as at least this, so that zero weights can move; ``> 0``.

    Raises:
        ValueError: A number is not positive.

    Cost:
        Reads all gradients and weights once more; no host sync.

    Source:
        Brock et al., "High-performance large-scale image recognition without normalization",
        2021, section 4. https://arxiv.org/abs/2102.06171

    Example:
        >>> import torch
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> weight, gradient = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.ones(2, 2)
        >>> factors = AGC().decide(moment_of(gradient, weight))[0].factors[0]
        >>> (factors * 2.0**0.5).tolist()  # limits 0.01 x 5 and 0.01 x 0.001
        [0.05, 1e-05]
    """

    acts = frozenset({"clip"})
    acts_on_findings = False

    def __init__(self, clipping: float = 0.01, *, epsilon: float = 1e-3) -> None:
        options.check_positive(clipping=clipping, epsilon=epsilon)
        self.clipping, self.epsilon = clipping, epsilon

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Clip each unit to a share of its weights."""
        gradients = moment.gradients
        members = gradients.roster.members
        clipped = [
            i
            for i in gradients.present
            if not members[i].is_head and members[i].parameter.dim() >= _MATRIX_DIMS
        ]
        if not clipped:
            return []
        # All units of all tensors at once: to judge each tensor apart takes twice the time.
        weights = [weight_unit_norms(members[i]) for i in clipped]
        norms = [gradients.unit_norms(i) for i in clipped]
        limits = self.clipping * torch.cat(weights).clamp(min=self.epsilon)
        factors = torch.split(clip_factors(torch.cat(norms), limits), [len(part) for part in norms])
        by_member = dict(zip(clipped, factors, strict=True))
        return [ScaleUnits(by_member, "agc", dict(zip(clipped, norms, strict=True)))]
