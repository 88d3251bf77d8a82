"""How ranks agree on what to do.

In: what one rank decided from what it saw. Out: what all of them do. Gradients are the same on all
ranks, losses and findings are not; ranks that acted differently would silently train different
models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_gradguard import devices
from lightning_gradguard.remedies.base import GoBack, LearningRate, Skip, Stop
from lightning_gradguard.remedies.council import Verdict

__all__ = ["Ranks"]


def _alone(number: Tensor, how: str) -> Tensor:  # noqa: ARG001 - as other ways to reduce
    return number


@dataclass(frozen=True)
class Ranks:
    """All processes of a training.

    Attributes:
        world_size: How many there are.
        reduce: Reduces a tensor over all of them by ``"mean"`` or ``"max"``; every rank calls it.
        device: Where tensors for that must be.

    Cost:
        Alone, nothing. Else one reduction of the loss, and one of a few numbers where remedies act
        on findings, per step.
    """

    world_size: int = 1
    reduce: Callable[[Tensor, str], Tensor] = _alone
    device: torch.device | None = None

    def mean(self, number: Tensor) -> Tensor:
        """Return the mean over ranks; NaN if it is NaN on any."""
        return number if self.world_size == 1 else self.reduce(number.clone(), "mean")

    def agree(self, verdict: Verdict, num_groups: int, *, may_skip: bool = True) -> Verdict:
        """Return the most careful of all ranks' verdicts on what happens beside clipping.

        Args:
            verdict: This rank's.
            num_groups: Parameter groups of the optimizer.
            may_skip: Whether any remedy may leave steps out; the same on all ranks.
        """
        if self.world_size == 1:
            return verdict
        rollback, stop = verdict.rollback, verdict.stop
        mine = [
            -float("inf") if rollback is None else -float(rollback.before_step),
            float(stop is not None),
            float(stop is not None and stop.as_error),
            *(-factor for factor in verdict.lr_factors(num_groups)),
            *(-factor for factor in verdict.lr_factors(num_groups, cuts_only=True)),
        ]
        all_of_us = self.reduce(self._tensor(mine), "max")
        before, stops, as_error, *factors = all_of_us.tolist()
        why = "another rank asked for it"
        return replace(
            verdict,
            skips=[self._agreed_skip(verdict)] if may_skip else [],
            rates=[
                LearningRate(-factor, groups=[group], is_cut=False)
                for group, factor in enumerate(factors[:num_groups])
            ]
            + [
                LearningRate(-factor, _why_of(verdict, why, -factor), groups=[group])
                for group, factor in enumerate(factors[num_groups:])
            ],
            rollback=None
            if before == -float("inf")
            else GoBack(int(-before), why if rollback is None else rollback.why),
            stop=Stop(why if stop is None else stop.why, as_error=bool(as_error))
            if stops
            else None,
        )

    def _tensor(self, numbers: list[float]) -> Tensor:
        device = torch.device("cpu") if self.device is None else self.device
        return torch.tensor(numbers, dtype=devices.widest_dtype(device), device=device)

    def _agreed_skip(self, verdict: Verdict) -> Skip:
        """Return a flag that is set if it is on any rank; every rank must ask."""
        mine = verdict.skip
        flag = self._tensor([0.0]) if mine is None else mine.to(torch.float32).reshape(1)
        agreed = (self.reduce(flag.to(self._tensor([])), "max") > 0.0).reshape(())
        known = verdict.skips[0] if verdict.skips else Skip(agreed, "another rank asked for it")
        return replace(known, when=agreed)


def _why_of(verdict: Verdict, otherwise: str, factor: float) -> str:
    """Return this rank's reason; where it had none but the rate changes, say whose it was."""
    mine = [rate for rate in verdict.rates if rate.why]
    if mine:
        return mine[0].why
    cuts = [rate.factor for rate in verdict.rates if rate.is_cut]
    return otherwise if factor < min(cuts, default=1.0) else ""
