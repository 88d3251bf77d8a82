"""Our own clipper: median and spread of the logarithm of the norm.

In: norms. Out: factors that bring outliers down, the farther off the more. Gradient norms are
skewed and their scale drifts by factors, so what is usual is told in log space, and by statistics
that up to half of the window cannot mislead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, Moment
from lightning_gradguard.remedies.factors import check_per, clip_to
from lightning_gradguard.remedies.log_norms import LogNorms
from lightning_gradguard.remedies.segments import Per, segment_names, segment_norms

__all__ = ["Robust"]


class Robust:
    """Clip norms that lie far above the median of the latest ones, in log space.

    With a median of m, a spread of s and a z-score of ``z = (log norm - log m) / s`` above the
    threshold t, the limit is ``m * exp(t * s * t / z)``: a little above the median, and the
    closer to it the farther off the norm was.

    Args:
        z_threshold: Spreads above the median from which a norm is clipped; ``> 0``.
        window: How many of the latest norms count; ``>= 1``.
        warmup_steps: Norms before which nothing is clipped; ``>= 1``.
        floor: Smallest spread, in units of the natural logarithm; ``> 0``.
        ceiling: Largest spread; ``>= floor``. Where outliers are so many that they widen the
            spread, they are outliers all the same.
        per: What one norm is taken of, see `ClipNorm`.

    Raises:
        ValueError: A number is out of range, or there is no such ``per``.

    Cost:
        Two medians of the window per step; no host sync.

    Source:
        The median absolute deviation as a scale: Hampel, "The influence curve and its role in
        robust estimation", 1974. To clip far outliers harder: Kumar et al., 2025.

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> clipper = Robust(warmup_steps=3)
        >>> for norm in (1.0, 1.0, 1.0, float("nan")):
        ...     _ = clipper.decide(moment_of([norm]))
        >>> factor = clipper.decide(moment_of([100.0]))[0].factors
        >>> round(100.0 * factor.item(), 2)
        1.02
    """

    acts = frozenset({"clip"})
    acts_on_findings = False

    def __init__(
        self,
        z_threshold: float = 3.0,
        *,
        window: int = 100,
        warmup_steps: int = 10,
        floor: float = 0.1,
        ceiling: float = 0.3,
        per: Per = "model",
    ) -> None:
        options.check_positive(z_threshold=z_threshold, warmup_steps=warmup_steps)
        options.check_positive(floor=floor, ceiling=ceiling)
        options.check_count("window", window)
        check_per(per)
        if ceiling < floor:
            msg = f"`ceiling` must be at least `floor`, {floor!r}, got {ceiling!r}."
            raise ValueError(msg)
        self.z_threshold, self.per = z_threshold, per
        self._baseline = LogNorms(window, warmup_steps, floor, ceiling)

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Judge the norm against the past, and learn no more of it than the threshold."""
        norms = segment_norms(moment.gradients, self.per)
        self._baseline.align(segment_names(moment.gradients.roster, self.per), norms)
        center, spread, z = self._baseline.judge(norms)
        threshold = self.z_threshold
        is_outlier = z > threshold
        infinite = torch.full_like(norms, torch.inf)
        target = (center + threshold * spread * threshold / z).exp()
        limits = torch.where(is_outlier, target, infinite)
        if moment.is_first_look:
            highest = torch.where(is_outlier, (center + threshold * spread).exp(), infinite)
            finite = torch.isfinite(norms)
            limited = torch.minimum(norms, highest)
            self._baseline.learn(torch.where(finite, limited, torch.full_like(norms, torch.nan)))
        return [clip_to(moment, self.per, limits, "robust", norms)]

    def state_dict(self) -> dict[str, Any]:
        """Return the norms so far, as JSON types."""
        return self._baseline.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._baseline.load_state_dict(state)
