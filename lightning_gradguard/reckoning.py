"""What remedies decided on the device, as records on the host.

In: decisions whose numbers are still on the device. Out: actions, one step later, and an error
when too many steps were left out. Never waits for the device while a step goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from lightning_gradguard.audit import Action, Audit, action_line, is_clipped
from lightning_gradguard.budget import Budget
from lightning_gradguard.remedies.base import Clamp, Scale, ScaleUnits
from lightning_gradguard.remedies.council import Verdict
from lightning_gradguard.transfer import Array, Transfer
from lightning_gradguard.ward import Decided

__all__ = ["Reckoning"]

_log: Final = logging.getLogger(__name__)

_GRAVE: Final = ("stop", "raise", "rollback", "give_up")
"""What must be in the log of a run whatever its sinks: after it the run is another one."""

_NOTHING: Final = torch.empty(0)

_LONG_HELD: Final = 200


@dataclass(frozen=True, eq=False)
class _Arriving:
    """A step whose numbers are on their way.

    Attributes:
        decided: Where it is.
        clippers: Names of those who clip.
        reasons: Of those who may leave the step out.
        transfer: The numbers.
    """

    decided: Decided
    clippers: str
    reasons: Sequence[str]
    transfer: Transfer


class Reckoning:
    """Turn decisions into records.

    Args:
        audit: Counts steps.
        budget: Judges how many steps were left out.
        tell: Called with every action.
    """

    def __init__(self, audit: Audit, budget: Budget, tell: Callable[[Action], None]) -> None:
        self.budget = budget
        self._audit, self._tell = audit, tell
        self._arriving: list[_Arriving] = []
        self._held_in_a_row = 0

    def note(self, what: str, decided: Decided, why: str, **numbers: float) -> None:
        """Make a record of something that was decided on the host.

        Args:
            what: See `Action`.
            decided: The step.
            why: The reason.
            numbers: What it rests on.
        """
        context = decided.context
        self._record(
            Action(
                what=what,
                step=decided.step,
                why=why,
                optimizer_index=context.optimizer_index,
                epoch=context.epoch,
                numbers=numbers,
                dry_run=self._audit.dry_run,
            )
        )

    def note_rates(self, decided: Decided, before: float) -> None:
        """Make a record of a learning rate that was cut or has healed.

        Args:
            decided: The step.
            before: The smallest factor before it.
        """
        now = decided.cut
        why = "; ".join(dict.fromkeys(rate.why for rate in decided.verdict.rates if rate.why))
        if now < before:
            self.note("reduce_lr", decided, why, lr_factor=now)
        elif why and now > before:
            self.note("restore_lr", decided, why, lr_factor=now)

    def _record(self, action: Action) -> None:
        self._audit.note(action)
        if action.what != "clip":
            is_grave = action.what in _GRAVE and not action.dry_run
            level = logging.WARNING if is_grave else logging.INFO
            _log.log(level, "gradguard: %s", action_line(action))
        self._tell(action)

    def send(self, decided: Decided) -> None:
        """Let the numbers of a step travel to the host."""
        norm, verdict = decided.norm, decided.verdict
        numbers = {"norm": norm}
        if decided.coefficient is not None:
            numbers["coefficient"] = decided.coefficient
        for i, skip in enumerate(verdict.skips):
            numbers[f"when {i}"] = skip.when.to(norm)
            numbers[f"value {i}"] = norm if skip.value is None else skip.value.to(norm)
            if skip.limit is not None:
                numbers[f"limit {i}"] = skip.limit.to(norm)
        clips = [clip for clip in verdict.clips if isinstance(clip, (Scale, ScaleUnits, Clamp))]
        self._arriving.append(
            _Arriving(
                # Not its tensors, which would keep memory.
                decided=replace(decided, verdict=Verdict(), norm=_NOTHING, coefficient=None),
                clippers=", ".join(dict.fromkeys(clip.name for clip in clips)),
                reasons=[skip.why for skip in verdict.skips],
                transfer=Transfer({name: n.reshape(()) for name, n in numbers.items()}),
            )
        )

    def collect(self, *, judge: bool = True) -> None:
        """Make records of what has arrived.

        Args:
            judge: Whether too many steps left out are an error.

        Raises:
            TrainingStoppedError: Too many steps were left out.
        """
        arrived, self._arriving = self._arriving, []
        for step in arrived:
            skipped = self._settle(step, step.transfer.arrive())
            decided = step.decided
            if judge and not self._audit.dry_run and (decided.is_first_look or skipped):
                index = decided.context.optimizer_index
                self.budget.note(index, decided.step, skipped=skipped)

    def _note_limit(self, limit: float) -> None:
        """Say that a run is held back for long: its rate is too high, or our limit is wrong."""
        self._held_in_a_row = self._held_in_a_row + 1 if limit < 1.0 else 0
        if self._held_in_a_row == _LONG_HELD:
            _log.warning(
                "gradguard has held back the last %d steps, the last one to %.2g of its learning "
                "rate: full ones would move the weights far. Lower the rate if the loss is not "
                "what it should be; if these steps are meant to be so long, leave `LimitUpdates` "
                "out.",
                _LONG_HELD,
                limit,
            )

    def _settle(self, step: _Arriving, numbers: dict[str, Array]) -> bool:
        """Make records of a step, and tell whether it was left out."""
        decided = step.decided
        coefficient = float(numbers.get("coefficient", math.nan))
        if decided.is_first_look:
            self._audit.note_step(coefficient, limit=decided.limit)
            self._note_limit(decided.limit)
            if is_clipped(coefficient):
                found = {"norm": float(numbers["norm"]), "coefficient": coefficient}
                self.note("clip", decided, step.clippers, **found)
        for i, why in enumerate(step.reasons):
            if numbers[f"when {i}"] > 0.0:
                found = {"value": float(numbers[f"value {i}"])}
                if f"limit {i}" in numbers:
                    found["limit"] = float(numbers[f"limit {i}"])
                self.note("skip", decided, why, **found)
                return True
        return False
