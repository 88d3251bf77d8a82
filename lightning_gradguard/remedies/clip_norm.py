"""Clip by norm: the simplest remedy, and the one to read first.

In: norms. Out: factors that bring them down to a fixed limit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, Moment
from lightning_gradguard.remedies.factors import check_per, clip_to
from lightning_gradguard.remedies.segments import Per, segment_norms

__all__ = ["ClipNorm"]


class ClipNorm:
    """Keep the gradient norm at or below a fixed limit.

    Args:
        max_norm: The limit; ``> 0``.
        per: What one norm is taken of: ``"model"`` (all that the optimizer trains), ``"group"``
            (of parameters), ``"layer"`` or output ``"unit"``.

    Raises:
        ValueError: ``max_norm`` is not positive, or there is no such ``per``.

    Cost:
        No host sync.

    Source:
        Pascanu et al., 2013. https://arxiv.org/abs/1211.5063

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> ClipNorm(1.0).decide(moment_of([3.0, 4.0]))[0].factors.item()
        0.2
    """

    acts = frozenset({"clip"})
    acts_on_findings = False

    def __init__(self, max_norm: float = 1.0, *, per: Per = "model") -> None:
        options.check_positive(max_norm=max_norm)
        check_per(per)
        self.max_norm, self.per = max_norm, per

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Clip what is too large."""
        norms = segment_norms(moment.gradients, self.per)
        limits = torch.full_like(norms, self.max_norm)
        return [clip_to(moment, self.per, limits, "norm", norms)]
