"""What an activation function did in one step, as numbers on the host.

In: nothing. Out: the record that `Frame` holds for each call that was looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Activation"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Activation:
    """The output of one call of an activation function, over a batch.

    Attributes:
        function: ``"relu"``, ``"tanh"``, …; of a recurrent layer's gate such as ``"forget gate"``.
        module: The module that called it, or is it.
        layer: The last layer with a weight matrix before it: whose units these are.
        mean: Of all entries; sampled.
        std: Standard deviation of all entries; sampled.
        zero_fraction: Share of entries that are exactly zero, in ``[0, 1]``; sampled.
        log2_histogram: Entries by magnitude, ``(HISTOGRAM_BINS,)``; sampled.
        active: Of a function that can be exactly zero, whether each unit was anything else for any
            sample of the batch, ``(units,)``.
        saturated: Of a function with flat ends, for which share of the batch each unit was within
            two hundredths of an end, ``(units,)``, in ``[0, 1]``.
    """

    function: str
    module: str
    layer: str
    mean: float
    std: float
    zero_fraction: float
    log2_histogram: npt.NDArray[np.float64]
    active: npt.NDArray[np.bool_] | None = None
    saturated: npt.NDArray[np.float64] | None = None

    @property
    def saturated_fraction(self) -> float:
        """Share of all entries that are near a flat end; NaN for a function that has none."""
        return float("nan") if self.saturated is None else float(np.mean(self.saturated))

    @property
    def dead_fraction(self) -> float:
        """Share of units that were zero for the whole batch; NaN for a function without zeros."""
        return float("nan") if self.active is None else 1.0 - float(np.mean(self.active))
