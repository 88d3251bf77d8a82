"""Drop steps that would write NaN into the weights.

In: the global norm and the loss. Out: a flag on the device, in the same step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_gradguard.remedies.base import Decision, Moment, Skip

__all__ = ["SkipNonFinite"]


class SkipNonFinite:
    """Drop a step whose gradients or loss are not finite.

    Under a gradient scaler only the loss is asked: gradients that overflow are its normal life,
    and it must see them to lower its scale.

    Cost:
        No host sync.

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> [SkipNonFinite().decide(moment_of([x]))[0].when.item() for x in (1.0, float("nan"))]
        [False, True]
    """

    acts = frozenset({"skip"})
    acts_on_findings = False

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Tell whether anything is not finite."""
        norm = moment.gradients.norm
        broken = torch.zeros_like(norm, dtype=torch.bool)
        if not moment.has_scaler:
            broken = ~torch.isfinite(norm)
        if moment.loss is not None:
            broken = broken | ~torch.isfinite(moment.loss)
        return [Skip(broken, "loss or gradients are not finite", value=norm)]
