"""The steps of a run, as rows of numbers.

In: rows of the file. Out: columns, of which each step is in one place.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard.history import tables

__all__ = ["QUERY", "Steps", "latest_rows"]

QUERY: Final = (
    "SELECT id, layout, step, epoch, batch, flags, present, attempt, scalars, "
    "CASE WHEN length(learning_rates) <= 65536 THEN learning_rates END FROM steps "
    "WHERE optimizer = ? AND id <= ? AND length(scalars) = ? ORDER BY id DESC LIMIT ?"
)
"""Asks for rows, given optimizer, last row, bytes of the scalars, and how many at most."""

_LARGEST_STEP: Final = 1 << 53
"""Up to here a step is a number in JavaScript and a double, too."""


class Steps:
    """The rows of one optimizer, an older attempt's dropped from a resume on.

    Attributes:
        ids: Their numbers in the file, rising.
        layouts: Which layers each has.
        steps: Optimizer steps, rising; twice the same where a gradient scaler refused one.
        epochs: Epoch of each.
        batches: Batch within the epoch.
        flags: What is either so or not, one bit each.
        present: Which scalars were measured, one bit each.
        attempts: Which attempt made each.
        scalars: ``(n, scalars)``.
        rates: Learning rates, as bytes.
    """

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        rows.reverse()  # the latest were asked for first, if there are too many
        numbers = np.array([row[:8] for row in rows], dtype=np.int64).reshape(-1, 8)
        steps = numbers[:, 2]
        if len(steps) and not 0 <= steps.min() <= steps.max() <= _LARGEST_STEP:
            msg = f"steps count from 0 to {_LARGEST_STEP}, got another one"
            raise ValueError(msg)
        kept = latest_rows(steps, numbers[:, 7])
        chosen = numbers[kept]
        self.ids, self.layouts, self.steps = chosen[:, 0], chosen[:, 1], chosen[:, 2]
        self.epochs, self.batches, self.flags = chosen[:, 3], chosen[:, 4], chosen[:, 5]
        self.present, self.attempts = chosen[:, 6], chosen[:, 7]
        blobs = [row[8] for row, keep in zip(rows, kept, strict=True) if keep]
        self.scalars = np.frombuffer(b"".join(blobs), dtype="<f8").reshape(
            len(blobs), len(tables.SCALARS)
        )
        self.rates = [row[9] for row, keep in zip(rows, kept, strict=True) if keep]


def latest_rows(
    steps: npt.NDArray[np.int64], attempts: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return which rows no later one did again.

    A step that a gradient scaler refused has the number of the one after it, in the same attempt.

    Example:
        >>> latest_rows(np.array([0, 1, 1, 2, 1]), np.array([1, 1, 1, 1, 2])).tolist()
        [True, False, False, False, True]
        >>> latest_rows(np.array([0, 1, 1, 2]), np.array([1, 1, 1, 1])).tolist()
        [True, True, True, True]
    """
    kept = np.ones(len(steps), dtype=bool)
    kept[:-1] = steps[:-1] < np.minimum.accumulate(steps[::-1])[::-1][1:]
    again = (steps[:-1] == steps[1:]) & (attempts[:-1] == attempts[1:])
    for row in np.flatnonzero(again)[::-1].tolist():
        kept[row] = kept[row + 1]
    return kept
