"""How noisy the gradient is, from two batch sizes that accumulation gives for free.

In: frames of steps that add up several batches. Out: the gradient noise scale: about the batch
size, counted in such batches, above which averaging over more of them hardly helps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from lightning_gradguard.frame import Frame
from lightning_gradguard.moments import Moments, updated

__all__ = ["NoiseScale"]

_FEWEST_STEPS: Final = 20


class NoiseScale:
    """Estimate the gradient noise scale of one optimizer.

    One batch's squared norm is signal plus noise; that of the mean over ``n`` batches is signal
    plus an ``n``-th of the noise. Both are averaged over steps before they are divided, since
    a single step says next to nothing.

    Args:
        decay: Weight of the past, in ``[0, 1)``.

    State:
        Two decayed means, as JSON types.

    Source:
        McCandlish et al., "An empirical model of large-batch training", 2018, appendix A.1.
        https://arxiv.org/abs/1812.06162
    """

    def __init__(self, *, decay: float = 0.99) -> None:
        self._decay = decay
        self._signal, self._noise = Moments(), Moments()

    @property
    def value(self) -> float | None:
        """The noise scale in batches, as they go into one backward pass on one rank.

        None before it is known, without accumulation, and while the signal drowns.
        """
        if self._signal.count < _FEWEST_STEPS or self._signal.mean <= 0.0:
            return None
        return max(0.0, self._noise.mean / self._signal.mean)

    def update(self, frame: Frame) -> None:
        """Learn from one step; one that adds up no batches teaches nothing."""
        if frame.first_batch_grad_norm is None or frame.accumulated_batches < 2:
            return
        num = frame.accumulated_batches * frame.world_size
        one, mean = frame.first_batch_grad_norm**2, frame.global_grad_norm**2
        if not (math.isfinite(one) and math.isfinite(mean)):
            return
        signal = (num * mean - one) / (num - 1)
        noise = (one - mean) / (1.0 - 1.0 / num)
        self._signal = updated(self._signal, signal, decay=self._decay)
        self._noise = updated(self._noise, noise, decay=self._decay)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"signal": _as_list(self._signal), "noise": _as_list(self._noise)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._signal, self._noise = Moments(*state["signal"]), Moments(*state["noise"])


def _as_list(moments: Moments) -> list[float]:
    return [moments.count, moments.mean, moments.variance]
