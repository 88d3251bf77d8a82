"""Adaptive gradient clipping: each unit's gradient against its own weights.

In: gradients and weights. Out: factors per output unit. Needs no past, so it acts from the first
step on.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, Moment, ScaleUnits
from lightning_gradguard.remedies.clipping import clip_factors
from lightning_gradguard.remedies.gradients import weight_unit_norms

__all__ = ["AGC"]


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

    can_skip = False
    acts_on_findings = False

    def __init__(self, clipping: float = 0.01, *, epsilon: float = 1e-3) -> None:
        options.check_positive(clipping=clipping, epsilon=epsilon)
        self.clipping, self.epsilon = clipping, epsilon

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Clip each unit to a share of its weights."""
        gradients = moment.gradients
        factors = {}
        for i in gradients.present:
            member = gradients.roster.members[i]
            if member.is_head or member.parameter.dim() < 2:
                continue
            limits = self.clipping * weight_unit_norms(member).clamp(min=self.epsilon)
            factors[i] = clip_factors(gradients.unit_norms(i), limits)
        return [ScaleUnits(factors, "agc")] if factors else []
