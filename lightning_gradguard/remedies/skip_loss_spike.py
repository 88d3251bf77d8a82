"""Drop steps whose loss is far above that of the latest steps.

In: the loss. Out: a flag on the device, in the same step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, Moment, Skip
from lightning_gradguard.remedies.memory import Memory

__all__ = ["SkipLossSpike"]

_RELATIVE_FLOOR: Final = 0.01
"""Smallest standard deviation, as a share of the mean: after equal losses a ripple is no spike."""


class SkipLossSpike:
    """Drop a step whose loss lies several standard deviations above the mean of the latest ones.

    A loss that was dropped is learned as no more than the limit; one that is not finite teaches
    nothing.

    Args:
        sigmas: Standard deviations above the mean; ``> 0``.
        window: How many of the latest losses count; ``>= 1``.
        warmup_steps: Losses before which none is a spike.

    Raises:
        ValueError: A number is not positive.

    Distributed:
        Judges the mean over ranks, which is reduced once per step.

    Source:
        OLMo-core's optimizers that skip steps: 6 standard deviations over 128 steps, from half
        of them on.

    Example:
        >>> import torch
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> skip = SkipLossSpike(warmup_steps=4)
        >>> losses = [1.0, 1.1, 0.9, 1.0, 9.0, 1.0]
        >>> moments = [moment_of([1.0], loss=torch.tensor(loss)) for loss in losses]
        >>> [skip.decide(moment)[0].when.item() for moment in moments]
        [False, False, False, False, True, False]
    """

    acts = frozenset({"skip"})
    acts_on_findings = False

    def __init__(self, sigmas: float = 6.0, *, window: int = 128, warmup_steps: int = 64) -> None:
        options.check_positive(sigmas=sigmas)
        options.check_count("window", window)
        options.check_count("warmup_steps", warmup_steps)
        self.sigmas, self.window, self.warmup_steps = sigmas, window, warmup_steps
        self._memory = Memory({"losses": (window, torch.nan), "count": (1, 0.0)})

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Judge the loss against the past, then learn it, limited."""
        if moment.loss is None:
            return ()
        loss = moment.loss.detach().to(moment.gradients.squares).reshape(1)
        self._memory.align(("loss",), like=loss)
        limit = self._limit()
        is_spike = (loss > limit) & torch.isfinite(loss)
        if moment.is_first_look:
            self._learn(torch.where(is_spike, limit, loss))
        why = "loss far above that of the latest steps"
        return [Skip(is_spike.reshape(()), why, loss.reshape(()), limit.reshape(()))]

    def _limit(self) -> Tensor:
        memory = self._memory
        past = memory["losses"][: max(1, min(memory.steps, self.window))]
        known = ~torch.isnan(past)
        count = known.sum(dim=0)
        mean = torch.nansum(past, dim=0) / count.clamp(min=1)
        squares = torch.where(known, past - mean, torch.zeros_like(past)).square().sum(dim=0)
        std = (squares / (count - 1).clamp(min=1)).sqrt()
        limit = mean + self.sigmas * torch.maximum(std, _RELATIVE_FLOOR * mean.abs())
        # Where the loss was zero all the time, nobody knows what is far above it.
        is_known = (memory["count"][0] >= self.warmup_steps) & (limit > mean)
        return torch.where(is_known, limit, torch.full_like(limit, torch.inf))

    def _learn(self, loss: Tensor) -> None:
        memory = self._memory
        finite = torch.isfinite(loss)
        row = torch.where(finite, loss, torch.full_like(loss, torch.nan))
        memory["losses"][memory.steps % self.window] = row
        memory["count"] = memory["count"] + finite.to(loss.dtype)
        memory.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the losses so far, as JSON types."""
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._memory.load_state_dict(state)
