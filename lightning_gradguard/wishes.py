"""What can only be done between two steps: go back, keep a state, end the training.

In: what was decided about steps. Out: at the end of a batch, a training that went back or is to
end, and records of that.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_gradguard.errors import TrainingStoppedError
from lightning_gradguard.reckoning import Reckoning
from lightning_gradguard.remedies.base import GoBack
from lightning_gradguard.return_point import ReturnPoint
from lightning_gradguard.ward import Decided

__all__ = ["Wishes"]


class Wishes:
    """Remember wishes until the batch is over; the first of each kind holds.

    Args:
        reckoning: Makes the records.
        dry_run: Whether to make records only.

    Attributes:
        return_point: Keeps states to go back to; None where nobody wants to.
        stop_reason: Why training is to end, or None.
    """

    def __init__(self, reckoning: Reckoning, *, dry_run: bool) -> None:
        self.return_point: ReturnPoint | None = None
        self.stop_reason: str | None = None
        self._reckoning, self._dry_run = reckoning, dry_run
        self._rollback: tuple[Decided, GoBack] | None = None
        self._raises = self._has_ended = False

    def note(self, decided: Decided) -> None:
        """Take in what was decided about a step."""
        verdict = decided.verdict
        if verdict.rollback is not None and self._rollback is None:
            self._rollback = decided, verdict.rollback
        if verdict.stop is not None and not self._has_ended:
            self._has_ended = True
            what = "raise" if verdict.stop.as_error else "stop"
            self._reckoning.note(what, decided, verdict.stop.why)
            if not self._dry_run:
                self.stop_reason, self._raises = verdict.stop.why, verdict.stop.as_error

    def start(self, steps: Mapping[int, int]) -> None:
        """Keep the state before the first step: what blows up at once can only go back to it.

        Args:
            steps: Completed steps of each optimizer.
        """
        if self.return_point is not None:
            self.return_point.keep(steps)

    def carry_out_(self, steps: Mapping[int, int], *, may_keep: bool) -> None:
        """Go back if anybody wished to; else keep a state, if it is time to.

        Args:
            steps: Completed steps of each optimizer.
            may_keep: Whether the state is worth keeping: nothing is wrong, and no step half done.

        Raises:
            TrainingStoppedError: A remedy wants to end the training with an error.
        """
        wish, self._rollback = self._rollback, None
        if wish is not None:
            self._go_back_(*wish, steps)
        elif self.return_point is not None and may_keep:
            self.return_point.keep(steps)
        if self._raises and self.stop_reason is not None:
            raise TrainingStoppedError(self.stop_reason)

    def _go_back_(self, decided: Decided, wish: GoBack, steps: Mapping[int, int]) -> None:
        index, point = decided.context.optimizer_index, self.return_point
        is_done = self._dry_run or (point is not None and point.go_back_(wish, index, steps))
        what = "rollback" if is_done else "give_up"
        why = wish.why if is_done else f"no state from before step {wish.before_step}"
        self._reckoning.note(what, decided, why, before_step=wish.before_step)
