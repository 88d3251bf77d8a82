"""What is usual for a norm: median and spread of its logarithm over the latest steps.

In: norms. Out: how far above the usual a new one lies. Gradient norms are skewed and drift by
factors, hence the logarithm; up to half of the window cannot mislead a median. Tensors stay on
the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from lightning_gradguard.remedies.memory import Memory

__all__ = ["LogNorms"]

_MAD_TO_STD: Final = 1.4826
"""What makes the median absolute deviation of normal numbers their standard deviation."""


class LogNorms:
    """Median and spread of the logarithms of the latest norms.

    What is judged is learned as no more than the limit, so that a run that blows up cannot teach
    that this is normal; zero and non-finite norms teach nothing.

    Args:
        window: How many of the latest norms count; ``>= 1``.
        warmup_steps: Norms before which nothing is an outlier.
        floor: Smallest spread, in units of the natural logarithm.
        ceiling: Largest spread.
    """

    def __init__(
        self, window: int, warmup_steps: int, floor: float, ceiling: float = math.inf
    ) -> None:
        self.window, self.warmup_steps = window, warmup_steps
        self.floor, self.ceiling = floor, ceiling
        self._memory = Memory({"logs": (window, torch.nan), "count": (1, 0.0)})

    def align(self, names: Sequence[str], norms: Tensor) -> None:
        """Have one column for each segment."""
        self._memory.align(names, like=norms)

    def judge(self, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return median and spread of the logarithms so far, and the z-scores of norms.

        Shape:
            ``(segments,)`` each; the z-score is 0 during the warm-up.
        """
        past = self._memory["logs"][: max(1, min(self._memory.steps, self.window))]
        center = torch.nanmedian(past, dim=0).values
        spread = _MAD_TO_STD * torch.nanmedian((past - center).abs(), dim=0).values
        spread = spread.clamp(self.floor, self.ceiling)
        z = (norms.log() - center) / spread
        is_warm = self._memory["count"][0] >= self.warmup_steps
        return center, spread, torch.where(is_warm, z, torch.zeros_like(z))

    def learn(self, norms: Tensor) -> None:
        """Remember norms, limited already."""
        memory = self._memory
        known = torch.isfinite(norms) & (norms > 0.0)
        # Each segment counts for itself, so that what teaches nothing pushes nothing out.
        place = self._places(1)
        logs = torch.where(known, norms.log(), memory["logs"].gather(0, place)[0])
        memory["logs"].scatter_(0, place, logs[None])
        memory["count"] = memory["count"] + known.to(norms.dtype)
        memory.steps += 1

    def _places(self, count: int) -> Tensor:
        """Return where the next numbers of each segment go, ``(count, segments)``."""
        offsets = torch.arange(count, device=self._memory["count"].device)[:, None]
        return (self._memory["count"].long() + offsets) % self.window

    def start_anew(self, norms: Tensor, *, where: Tensor) -> None:
        """Take the latest norms for all of the past, as they are: a level that has risen.

        Args:
            norms: Oldest first, ``(steps, segments)``.
            where: Whether to, ``(segments,)``.
        """
        memory, logs = self._memory, norms[-self.window :].log()
        nothing = torch.full_like(memory["logs"], torch.nan)
        past = nothing.scatter(0, self._places(len(logs)), logs)
        memory["logs"] = torch.where(where, past, memory["logs"])
        memory["count"] = memory["count"] + torch.where(where, float(len(logs)), 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the norms so far, as JSON types."""
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._memory.load_state_dict(state)
