"""AutoClip: a percentile of the past.

In: norms. Out: factors that bring them down to a low percentile of all norms so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, Moment
from lightning_gradguard.remedies.factors import check_per, clip_to
from lightning_gradguard.remedies.memory import Memory
from lightning_gradguard.remedies.segments import Per, segment_names, segment_norms

__all__ = ["AutoClip"]


class AutoClip:
    """Clip to a percentile of the norms so far, this one included.

    Norms that are zero or not finite are not remembered: one NaN would make every later
    percentile NaN, and zeros would clip everything to nothing.

    Args:
        percentile: In ``(0, 100]``.
        window: How many of the latest steps are remembered; ``>= 1``. The paper keeps all.
        per: What one norm is taken of, see `ClipNorm`.

    Raises:
        ValueError: A number is out of range, or there is no such ``per``.

    Cost:
        Sorts the window once per step; no host sync.

    Source:
        Seetharaman et al., "AutoClip: adaptive gradient clipping for source separation networks",
        2020. https://arxiv.org/abs/2007.14469

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> clipper = AutoClip(percentile=50)
        >>> [clipper.decide(moment_of([norm]))[0].factors.item() for norm in (1.0, 3.0)]
        [1.0, 0.6666666666666666]
    """

    acts = frozenset({"clip"})
    acts_on_findings = False

    def __init__(self, percentile: float = 10.0, *, window: int = 1000, per: Per = "model") -> None:
        options.check_positive(percentile=percentile)
        if percentile > 100.0:
            msg = f"`percentile` must be at most 100, got {percentile!r}."
            raise ValueError(msg)
        options.check_count("window", window)
        check_per(per)
        self.percentile, self.window, self.per = percentile, window, per
        self._memory = Memory({"norms": (window, torch.nan)})

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Remember the norm, and clip it to the percentile."""
        norms = segment_norms(moment.gradients, self.per)
        self._memory.align(segment_names(moment.gradients.roster, self.per), like=norms)
        limits = self._limits(norms, learn=moment.is_first_look)
        return [clip_to(moment, self.per, limits, "autoclip", norms)]

    def _limits(self, norms: Tensor, *, learn: bool) -> Tensor:
        memory = self._memory
        if learn:
            known = torch.isfinite(norms) & (norms > 0.0)
            row = memory.steps % self.window
            memory["norms"][row] = torch.where(known, norms, torch.full_like(norms, torch.nan))
            memory.steps += 1
        past = memory["norms"][: max(1, min(memory.steps, self.window))]
        limits = torch.nanquantile(past, self.percentile / 100.0, dim=0)
        return torch.where(torch.isnan(limits), torch.full_like(limits, torch.inf), limits)

    def state_dict(self) -> dict[str, Any]:
        """Return the norms so far, as JSON types."""
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._memory.load_state_dict(state)
