"""Remedies for one training, and the carrying out of what they decide.

In: the moments of a training loop, from an adapter, and what the monitor found. Out: a training
that was acted on, and a record of every action. Knows nothing of Lightning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from lightning_gradguard.actions.buffers import Buffers
from lightning_gradguard.actions.scaler import ScalerKeeper
from lightning_gradguard.actions.states import Stateful
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.audit import Action, Audit
from lightning_gradguard.budget import Budget
from lightning_gradguard.episodes import Episode
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.losses import StepLoss
from lightning_gradguard.ranks import Ranks
from lightning_gradguard.reckoning import Reckoning
from lightning_gradguard.remedies.base import Remedy
from lightning_gradguard.remedies.council import Council
from lightning_gradguard.remedies.gradients import Known, Roster
from lightning_gradguard.remedies.traits import acts_on_findings, may_skip
from lightning_gradguard.return_point import ReturnPoint
from lightning_gradguard.ward import Decided, Ward
from lightning_gradguard.wishes import Wishes

__all__ = ["Guard"]

_log: Final = logging.getLogger(__name__)


class Guard:
    """Act on one training.

    Args:
        model: The model that is trained.
        remedies: Each optimizer gets copies of them.
        roster_of: Names the parameters of an optimizer.
        ranks: How ranks agree.
        dry_run: Whether to decide and record everything, and change nothing.
        budget: How many steps may be left out.
        scaler: The gradient scaler, if there is one.
        many_steps_per_batch: Whether optimizers may step several times in one batch.
        on_error: Whether a failing remedy is reported or raised.
        tell: Called with every action.

    Attributes:
        audit: What was done.

    State:
        That of the remedies and of the audit, as JSON types.
    """

    def __init__(
        self,
        model: nn.Module,
        remedies: Sequence[Remedy],
        *,
        roster_of: Callable[[torch.optim.Optimizer], Roster],
        ranks: Ranks | None = None,
        dry_run: bool = False,
        budget: Budget | None = None,
        scaler: Stateful | None = None,
        many_steps_per_batch: bool = False,
        on_error: str = "warn",
        tell: Callable[[Action], None] = lambda _: None,
    ) -> None:
        self.audit = Audit(dry_run=dry_run)
        self._remedies, self._on_error, self._dry_run = remedies, on_error, dry_run
        self._roster_of = roster_of
        self._ranks = Ranks() if ranks is None else ranks
        self._may_skip = any(map(may_skip, remedies))
        self._acts_on_findings = any(map(acts_on_findings, remedies))
        keeps_buffers = self._may_skip and not dry_run
        self._buffers = Buffers(model) if keeps_buffers else None
        self._reckoning = Reckoning(self.audit, Budget() if budget is None else budget, tell)
        self._wishes = Wishes(self._reckoning, dry_run=dry_run)
        self._wards: dict[int, Ward] = {}
        self._loss = StepLoss()
        self._lost_buffers: list[str] = []
        self._is_open = False
        self._scaler = ScalerKeeper(scaler)
        self._many_steps_per_batch = many_steps_per_batch
        self._is_calm, self._failure = True, ""

    # Getting ready, and letting go.

    def attach(
        self, index: int, optimizer: torch.optim.Optimizer, decide_late: Callable[[], object]
    ) -> None:
        """Stand around every step of an optimizer.

        Args:
            index: Position of the optimizer.
            optimizer: The optimizer; another one than before takes over its remedies.
            decide_late: Called before a step that `decide` was not asked about.

        Raises:
            AttributeError: The optimizer has no step hooks.
        """
        before = self._wards.get(index)
        if before is not None and before.optimizer is optimizer:
            return
        council = Council.of(self._remedies, on_error=self._on_error)
        ward = Ward(optimizer, council, self._roster_of, ranks=self._ranks, dry_run=self._dry_run)
        if before is not None:
            before.detach()
            ward.council, ward.steps = before.council, before.steps
        ward.attach(
            decide_late, lambda skipped: self._end_step(index, skipped), may_skip=self._may_skip
        )
        self._wards[index] = ward

    def keep_states(self, return_point: ReturnPoint) -> None:
        """Keep states to go back to."""
        self._wishes.return_point = return_point

    def detach(self) -> None:
        """Let go of all optimizers, as after the last step or an error."""
        for ward in self._wards.values():
            ward.detach()
        self._reckoning.collect(judge=False)

    def switch_off(self, reason: str) -> None:
        """Act no more, at once; `detach` comes later.

        Args:
            reason: What failed, for the summary.
        """
        steps = max(self._steps.values(), default=0)
        self._failure = f"unprotected from step {steps} on: {reason}"
        for ward in self._wards.values():
            ward.switch_off()

    def start(self) -> None:
        """Get ready for the first step."""
        self._wishes.start(self._steps)

    # The moments of a step.

    def start_batch(self) -> None:
        """Keep what the forward pass may change, at the first of the batches that add up."""
        for ward in self._wards.values():
            ward.reset()
        if not self._is_open and self._buffers is not None:
            self._buffers.remember()
        self._is_open = True

    def add_loss(self, loss: Tensor, scale: Tensor | None = None) -> None:
        """Take in the loss of one backward pass; those before one update add up.

        Args:
            loss: As it goes into ``backward``.
            scale: What a gradient scaler multiplied it by, shape ``()``.
        """
        self._loss.add(loss, scale)

    def hear(self, frame: Frame, findings: Sequence[Finding]) -> None:
        """Take in what the monitor judged."""
        if frame.optimizer_index in self._wards:
            self._wards[frame.optimizer_index].hear(frame, findings)

    def decide(
        self,
        context: StepContext,
        episodes: Sequence[Episode],
        *,
        known: Known | None = None,
        scale: Tensor | None = None,
    ) -> Decided | None:
        """Look at complete gradients, clip them, and remember what to do to the step.

        Args:
            context: Where in training this is.
            episodes: Faults that go on.
            known: What was measured already.
            scale: What a gradient scaler left in the gradients.

        Raises:
            TrainingStoppedError: Too many steps were left out.
        """
        ward = self._wards.get(context.optimizer_index)
        if ward is None:
            return None
        self._reckoning.collect()
        self._is_calm = not any(episode.worst.is_alarm for episode in episodes)
        loss = self._loss.take()
        if loss is not None and (self._may_skip or self._acts_on_findings):
            loss = self._ranks.mean(loss)
        before = ward.cut
        decided = ward.decide(
            context,
            loss,
            episodes,
            known=known,
            scale=scale,
            must_agree=self._must_agree,
            may_skip=self._may_skip,
        )
        if decided is not None:
            self._reckoning.note_rates(decided, before)
            self._wishes.note(decided)
            if not self._dry_run:
                self._scaler.note(decided.verdict.skip)
            if decided.is_first_look:
                ward.flags_sent = []
            if decided.is_first_look or _is_late_skip(ward, decided):
                self._reckoning.send(decided)
                if decided.verdict.skip is not None:
                    ward.flags_sent.append(decided.verdict.skip)
        return decided

    @property
    def _must_agree(self) -> bool:
        return self._acts_on_findings and self._ranks.world_size > 1

    def done_to(self, index: int) -> Mapping[str, Tensor | float] | None:
        """Return what is done to the step that goes on, as a frame tells it; None for nothing."""
        return self._wards[index].done if index in self._wards else None

    def _end_step(self, index: int, skipped: bool | Tensor) -> None:  # noqa: FBT001 - as the bracket says it
        ward = self._wards[index]
        ward.pending = None
        ward.steps += 1
        self._put_back(skipped)
        if self._buffers is not None and self._many_steps_per_batch:
            self._buffers.remember()
        self._is_open = False

    def _put_back(self, skipped: bool | Tensor) -> None:  # noqa: FBT001 - as above
        """Put back the buffers that the step changed, and name those of which there is no copy."""
        lost = [] if self._buffers is None else self._buffers.restore_(skipped)
        news = [name for name in lost if name not in self._lost_buffers]
        if news and bool(skipped):
            self._lost_buffers += news
            names = ", ".join(news)
            _log.warning(
                "gradguard left a step out, but %s had changed and no copy was kept.", names
            )

    def end_batch(self) -> None:
        """Do what can only be done between steps: go back, keep a state, stop.

        Raises:
            TrainingStoppedError: A remedy wants to end the training with an error.
        """
        for ward in self._wards.values():
            if ward.was_refused:
                self._settle_refused(ward)
        self._scaler.restore_()
        self._wishes.carry_out_(self._steps, may_keep=self._is_calm and not self._is_open)

    def _settle_refused(self, ward: Ward) -> None:
        """Finish a step that the gradient scaler did not let the optimizer make."""
        flag = None if ward.pending is None else ward.pending.verdict.skip
        ward.pending = None
        self._is_open = False
        if flag is not None and bool(flag):
            self._put_back(skipped=True)

    @property
    def _steps(self) -> dict[int, int]:
        return {index: ward.steps for index, ward in self._wards.items()}

    # How it went.

    @property
    def stop_reason(self) -> str | None:
        """Why training is to end, or None."""
        return self._wishes.stop_reason

    def acts(self) -> list[str]:
        """Say in a few sentences what was done, and what could not be."""
        reasons = [reason for ward in self._wards.values() for reason in ward.council.given_up]
        failed = [f"no longer helped by {reason}" for reason in reasons]
        lost = ", ".join(self._lost_buffers)
        lines = [*self.audit.lines(), *failed, f"could not put back {lost}" if lost else ""]
        return [line for line in (*lines, self._failure) if line]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types, after reading what has arrived."""
        self._reckoning.collect(judge=False)
        return {
            "wards": {str(index): ward.state_dict() for index, ward in self._wards.items()},
            "audit": self.audit.state_dict(),
            "budget": self._reckoning.budget.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; the optimizers must be attached already."""
        before = self.state_dict()
        try:
            self._load(state)
        except Exception:
            self._load(before)  # all or nothing
            raise

    def _load(self, state: Mapping[str, Any]) -> None:
        for index, saved in state["wards"].items():
            if int(index) in self._wards:
                self._wards[int(index)].load_state_dict(saved)
        self.audit.load_state_dict(state["audit"])
        self._reckoning.budget.load_state_dict(state["budget"])


def _is_late_skip(ward: Ward, decided: Decided) -> bool:
    """Whether only this later look of a line search finds a reason to leave the step out."""
    flag = decided.verdict.skip
    return flag is not None and bool(flag) and not any(map(bool, ward.flags_sent))
