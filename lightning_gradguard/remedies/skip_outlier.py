"""Drop steps whose gradient is far beyond anything usual.

In: the global norm. Out: a flag on the device, in the same step: what detectors find arrives too
late to keep a batch out of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, Moment, Skip
from lightning_gradguard.remedies.log_norms import LogNorms
from lightning_gradguard.remedies.memory import Memory

__all__ = ["SkipOutlier"]


class SkipOutlier:
    """Drop a step whose global norm is an outlier by its logarithm.

    It learns no more of an outlier than the threshold. But many in a row are no outliers, they
    are a level that has risen: what follows is judged against them. Norms that are zero or not
    finite neither count nor end the row.

    Args:
        z_threshold: Spreads above the median from which a step is dropped; ``> 0``.
        min_factor: How many times the median the norm must be, too; ``> 1``.
        window: How many of the latest norms count; ``>= 1``.
        warmup_steps: Norms before which nothing is an outlier.
        floor: Smallest spread, in units of the natural logarithm.
        patience_steps: So many outliers in a row, all of them dropped, are a new level; ``>= 1``.

    Raises:
        ValueError: A number is not positive.

    Cost:
        Two medians of the window per step; no host sync.

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> skip = SkipOutlier(warmup_steps=3)
        >>> norms = [1.0, 1.1, 0.9, 1.0, 50.0, 1.0]
        >>> [skip.decide(moment_of([norm]))[0].when.item() for norm in norms]
        [False, False, False, False, True, False]

    Source:
        Six standard deviations over 128 steps: OLMo-core's rule for skipping. Median and spread
        of the logarithm in place of mean and deviation: see `Robust`.
    """

    acts = frozenset({"skip"})
    acts_on_findings = False

    def __init__(
        self,
        z_threshold: float = 6.0,
        *,
        min_factor: float = 4.0,
        window: int = 128,
        warmup_steps: int = 20,
        floor: float = 0.1,
        patience_steps: int = 10,
    ) -> None:
        options.check_positive(z_threshold=z_threshold, min_factor=min_factor, floor=floor)
        options.check_count("window", window)
        options.check_count("warmup_steps", warmup_steps)
        options.check_count("patience_steps", patience_steps)
        self.z_threshold, self.min_factor = z_threshold, min_factor
        self._past = LogNorms(window, warmup_steps, floor)
        self._in_a_row = Memory({"outliers": (patience_steps, torch.nan)})

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Judge the norm against the past, then learn it, limited."""
        norms = moment.gradients.norm.reshape(1)
        self._past.align(("model",), norms)
        self._in_a_row.align(("model",), like=norms)
        center, spread, z = self._past.judge(norms)
        limits = (center + (self.z_threshold * spread).clamp(min=math.log(self.min_factor))).exp()
        # An infinite norm is not finite rather than large: another remedy speaks about it.
        is_outlier = torch.isfinite(norms) & (z > 0.0) & (norms > limits)
        if moment.is_first_look:
            self._past.learn(torch.where(is_outlier, limits, norms))
            self._look_for_a_new_level(norms, is_outlier)
        return [
            Skip(
                is_outlier.reshape(()),
                "gradient norm far beyond the usual",
                value=moment.gradients.norm,
                limit=limits.reshape(()),
            )
        ]

    def _look_for_a_new_level(self, norms: Tensor, is_outlier: Tensor) -> None:
        """Let outliers be the past as soon as there are enough of them in a row."""
        row = self._in_a_row["outliers"]
        nothing = torch.full_like(row, torch.nan)
        is_usual = torch.isfinite(norms) & (norms > 0.0) & ~is_outlier
        longer = torch.cat([row[1:], norms.unsqueeze(0)])
        row = torch.where(is_outlier, longer, torch.where(is_usual, nothing, row))
        is_level = ~torch.isnan(row).any(dim=0)
        self._past.start_anew(row, where=is_level)
        self._in_a_row["outliers"] = torch.where(is_level, nothing, row)

    def state_dict(self) -> dict[str, Any]:
        """Return the norms so far, and the outliers in a row, as JSON types."""
        return {"past": self._past.state_dict(), "in_a_row": self._in_a_row.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._past.load_state_dict(state["past"])
        self._in_a_row.load_state_dict(state["in_a_row"])
