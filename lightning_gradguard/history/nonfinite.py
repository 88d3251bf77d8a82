"""Where a statistic was not finite, which its number alone does not say.

In: a statistic, and how many entries of the gradient were not finite. Out: a mask. Imports only
numpy and the standard library.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["not_finite"]

_OF_GRADIENTS: Final = ("grad_", "update_", "weight_grad_", "weight_update_")
"""How the names begin of what is not known where a gradient is not finite."""
_OF_WEIGHTS: Final = {"param_norm", "weight_param_norm"}
"""What is measured whenever a gradient is, so that NaN is a number of theirs."""


def not_finite(
    name: str, numbers: npt.NDArray[Any], num_nonfinite: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    """Return where a statistic was not finite.

    Args:
        name: Of the statistic.
        numbers: ``(steps,)`` or ``(steps, layers)``.
        num_nonfinite: How many entries of the gradient were not finite; NaN is not measured.

    Example:
        >>> known, nan = np.array([0.0, 2.0, np.nan]), np.full(3, np.nan)
        >>> not_finite("grad_norm", np.ones(3), known).tolist()
        [False, True, False]
        >>> not_finite("param_norm", np.array([1.0, np.nan, np.nan]), known).tolist()
        [False, True, False]
    """
    found: npt.NDArray[np.bool_] = np.isinf(numbers)
    if name.startswith(_OF_GRADIENTS):
        found = found | (num_nonfinite > 0)
    if name in _OF_WEIGHTS:
        # A layer without a weight matrix has never had a norm of one.
        has_any = np.isfinite(numbers).any(axis=0)
        found = found | (np.isnan(numbers) & ~np.isnan(num_nonfinite) & has_any)
    return found
