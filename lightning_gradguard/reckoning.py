"""What remedies decided on the device, as records on the host.

In: decisions whose numbers are still on the device. Out: actions, one step later, and an error
when too many steps were left out. Never waits for the device while a step goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lightning_gradguard.audit import Action, Audit, is_clipped
from lightning_gradguard.budget import Budget
from lightning_gradguard.remedies.base import Clamp, Scale, ScaleUnits
from lightning_gradguard.transfer import Array, Transfer
from lightning_gradguard.ward import Decided

__all__ = ["Reckoning"]


@dataclass(frozen=True, eq=False)
class _Arriving:
    """A step whose numbers are on their way.

    Attributes:
        step: Completed steps of the optimizer.
        epoch: Epoch.
        optimizer_index: Position of the optimizer.
        is_first_look: Whether this was the first look at the step.
        clippers: Names of those who clip.
        reasons: Of those who may leave the step out.
        transfer: The numbers.
    """

    step: int
    epoch: int
    optimizer_index: int
    is_first_look: bool
    clippers: str
    reasons: Sequence[str]
    transfer: Transfer


class Reckoning:
    """Turn decisions into records.

    Args:
        audit: Counts steps.
        budget: Judges how many steps were left out.
        note: Takes every action.
    """

    def __init__(self, audit: Audit, budget: Budget, note: Callable[[Action], None]) -> None:
        self.budget = budget
        self._audit, self._note = audit, note
        self._arriving: list[_Arriving] = []

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
                step=decided.step,
                epoch=decided.context.epoch,
                optimizer_index=decided.context.optimizer_index,
                is_first_look=decided.is_first_look,
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
            skipped = self._record(step, step.transfer.arrive())
            if judge and not self._audit.dry_run and (step.is_first_look or skipped):
                self.budget.note(step.optimizer_index, step.step, skipped=skipped)

    def _record(self, step: _Arriving, numbers: dict[str, Array]) -> bool:
        coefficient = float(numbers.get("coefficient", torch.nan))
        if step.is_first_look:
            self._audit.note_step(coefficient)
        if step.is_first_look and is_clipped(coefficient):
            found = {"norm": float(numbers["norm"]), "coefficient": coefficient}
            self._note(self._action("clip", step, step.clippers, found))
        for i, why in enumerate(step.reasons):
            if numbers[f"when {i}"] > 0.0:
                found = {"value": float(numbers[f"value {i}"])}
                if f"limit {i}" in numbers:
                    found["limit"] = float(numbers[f"limit {i}"])
                self._note(self._action("skip", step, why, found))
                return True
        return False

    def _action(self, what: str, step: _Arriving, why: str, numbers: dict[str, float]) -> Action:
        return Action(
            what=what,
            step=step.step,
            why=why,
            optimizer_index=step.optimizer_index,
            epoch=step.epoch,
            numbers=numbers,
            dry_run=self._audit.dry_run,
        )
