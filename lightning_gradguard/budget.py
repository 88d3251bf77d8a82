"""How many steps may be left out before training has to end.

In: whether each step was left out. Out: nothing, or an error: a run that skips for ever only looks
alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_gradguard import options
from lightning_gradguard.errors import TrainingStoppedError

__all__ = ["Budget"]


class Budget:
    """Count steps that were left out.

    Args:
        max_consecutive_skips: So many in a row; ``>= 1``.
        max_skipped_fraction: This share of all steps, in ``(0, 1]``, counted from ``min_steps`` on.
        min_steps: Steps before which the share is not judged.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> budget = Budget(max_consecutive_skips=2)
        >>> budget.note(0, 7, skipped=True), budget.note(0, 8, skipped=True)
        (None, None)
        >>> budget.note(0, 9, skipped=True)
        Traceback (most recent call last):
        lightning_gradguard.errors.TrainingStoppedError: 3 steps in a row had to be left out, ...
    """

    def __init__(
        self,
        max_consecutive_skips: int = 20,
        max_skipped_fraction: float = 0.25,
        *,
        min_steps: int = 100,
    ) -> None:
        options.check_count("max_consecutive_skips", max_consecutive_skips)
        options.check_share("max_skipped_fraction", max_skipped_fraction)
        self.max_consecutive_skips = max_consecutive_skips
        self.max_skipped_fraction = max_skipped_fraction
        self._min_steps = min_steps
        self._in_a_row: dict[int, int] = {}
        self._skipped: dict[int, int] = {}
        self._steps: dict[int, int] = {}

    def note(self, optimizer_index: int, step: int, *, skipped: bool) -> None:
        """Count a step.

        Raises:
            TrainingStoppedError: Too many were left out.
        """
        index = optimizer_index
        self._steps[index] = steps = self._steps.get(index, 0) + 1
        self._skipped[index] = total = self._skipped.get(index, 0) + skipped
        self._in_a_row[index] = in_a_row = self._in_a_row.get(index, 0) + 1 if skipped else 0
        advice = "The weights or the data are broken: look at the first of these steps."
        if in_a_row > self.max_consecutive_skips:
            msg = (
                f"{in_a_row} steps in a row had to be left out, up to step {step}; "
                f"`max_consecutive_skips` allows {self.max_consecutive_skips}. {advice}"
            )
            raise TrainingStoppedError(msg)
        if skipped and steps >= self._min_steps and total > self.max_skipped_fraction * steps:
            msg = (
                f"{total} of {steps} steps had to be left out, up to step {step}; "
                f"`max_skipped_fraction` allows {self.max_skipped_fraction:g}. {advice}"
            )
            raise TrainingStoppedError(msg)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, as JSON types."""
        return {
            str(index): [self._in_a_row[index], self._skipped[index], steps]
            for index, steps in self._steps.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        for index, (in_a_row, skipped, steps) in state.items():
            self._in_a_row[int(index)] = in_a_row
            self._skipped[int(index)], self._steps[int(index)] = skipped, steps
