"""Steps into columns of a picture.

In: steps. Out: where each column begins. Imports only numpy and the standard library.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["between", "columns_of"]

_MOST_COLUMNS: Final = 4096


def between(steps: npt.NDArray[np.int64], first: int | None, last: int | None) -> slice:
    """Return which rows are from one step to another; None is the end of the run."""
    begin = 0 if first is None else int(np.searchsorted(steps, first))
    end = len(steps) if last is None else int(np.searchsorted(steps, last, side="right"))
    return slice(begin, end)


def columns_of(steps: npt.NDArray[np.int64], columns: int) -> npt.NDArray[np.int64]:
    """Return where each column begins, so that columns are equally many steps wide."""
    if not len(steps):
        return np.zeros(0, np.int64)
    columns = max(1, min(int(columns), _MOST_COLUMNS))
    width = max(1.0, (int(steps[-1]) - int(steps[0]) + 1) / columns)
    return np.unique(((steps - steps[0]) / width).astype(np.int64), return_index=True)[1]
