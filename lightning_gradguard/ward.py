"""One optimizer under guard.

In: its gradients when they are complete. Out: clipped gradients, and orders for the step that
follows. Stands between the remedies, which decide, and the actions, which write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_gradguard.actions.clipping import clip_
from lightning_gradguard.actions.rates import has_rate, reads_rates_late
from lightning_gradguard.actions.step import Bracket, Orders
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.episodes import Episode
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.frame_state import frame_from_dict, frame_to_dict
from lightning_gradguard.ranks import Ranks
from lightning_gradguard.remedies.base import Moment
from lightning_gradguard.remedies.council import Council, Verdict
from lightning_gradguard.remedies.gradients import Gradients, Known, Roster

__all__ = ["Decided", "Ward"]


@dataclass(frozen=True, eq=False)
class Decided:
    """What was decided about one step, and what clipping did already.

    Attributes:
        verdict: The decisions.
        context: Where in training the step is.
        step: Completed steps of the optimizer.
        norm: Gradient norm before clipping, shape ``()``.
        coefficient: What clipping multiplied it by, shape ``()``; None for no clipper.
        lr_factors: One per parameter group.
        cut: What cuts multiplied the learning rates by, the smallest of all groups; without limits
            of this step alone.
        is_first_look: Whether this was the first look at the step.
    """

    verdict: Verdict
    context: StepContext
    step: int
    norm: Tensor
    coefficient: Tensor | None
    lr_factors: Sequence[float]
    cut: float
    is_first_look: bool

    @property
    def limit(self) -> float:
        """What the rate was multiplied by for this step alone, beside cuts."""
        return min(self.lr_factors, default=1.0) / self.cut


class Ward:
    """Guard one optimizer.

    Args:
        optimizer: The optimizer.
        council: Its remedies.
        roster_of: Names the parameters of an optimizer.
        ranks: How ranks agree.
        dry_run: Whether to change nothing.

    Attributes:
        steps: Completed optimizer steps.
        pending: What was decided about the step that goes on, or None.
        skipped: Whether that step is left out: known, or a flag on the device.
        lr_factors: In force now, one per parameter group.
        flags_sent: For the step that goes on, flags to leave it out that have become records.
        cut: The smallest of them without limits of one step alone.
        done: What is done to that step, as a frame tells it; None for nothing.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        council: Council,
        roster_of: Callable[[torch.optim.Optimizer], Roster],
        *,
        ranks: Ranks,
        dry_run: bool,
    ) -> None:
        self.optimizer, self.council = optimizer, council
        self.steps = 0
        self.pending: Decided | None = None
        self.lr_factors: Sequence[float] = ()
        self.cut = 1.0
        self.flags_sent: list[Tensor] = []
        self._roster_of, self._ranks, self._dry_run = roster_of, ranks, dry_run
        self._roster, self._is_settled = roster_of(optimizer), False
        self._frames: list[Frame] = []
        self._findings: list[Finding] = []
        self._bracket: Bracket | None = None

    @property
    def roster(self) -> Roster:
        """The parameters, as the optimizer has them now."""
        now = [id(p) for group in self.optimizer.param_groups for p in group["params"]]
        # Once more in the first step: only then it is known which layer comes last.
        if not self._is_settled or now != [id(m.parameter) for m in self._roster.members]:
            self._roster = self._roster_of(self.optimizer)
        return self._roster

    @property
    def skipped(self) -> bool | Tensor:
        """Whether the step that goes on is left out."""
        return False if self._bracket is None else self._bracket.skipped

    @property
    def done(self) -> Mapping[str, Tensor | float] | None:
        """What is done to the step that goes on."""
        if self.pending is None or self._dry_run:
            return None
        skipped, coefficient = self.skipped, self.pending.coefficient
        done = {
            "skipped": skipped if isinstance(skipped, Tensor) else float(skipped),
            "lr_factor": min(self.pending.lr_factors, default=1.0),
        }
        return done if coefficient is None else {**done, "guard_clip_coefficient": coefficient}

    @property
    def was_refused(self) -> bool:
        """Whether a step was decided about but its optimizer never called."""
        return self.pending is not None and self._bracket is not None and not self._bracket.is_in

    def attach(
        self,
        decide_late: Callable[[], object],
        after: Callable[[bool | Tensor], None],
        *,
        may_skip: bool,
    ) -> None:
        """Stand around every step.

        Args:
            decide_late: Called when gradients are final and nobody has asked for a decision.
            after: Told when a step is over, and whether it was left out.
            may_skip: Whether any remedy may leave steps out.

        Raises:
            AttributeError: The optimizer has no step hooks.
        """

        def orders() -> Orders:
            if self.pending is None:
                decide_late()
            return self._orders()

        self._bracket = Bracket(self.optimizer, orders, after)
        factors = (lambda: ()) if self._dry_run else (lambda: self.lr_factors)
        self._bracket.attach(factors, may_skip=may_skip and not self._dry_run)

    def reset(self) -> None:
        """Undo what a step left that ended in an error."""
        if self._bracket is not None:
            self._bracket.reset()

    def switch_off(self) -> None:
        """Act no more; `detach` comes later."""
        if self._bracket is not None:
            self._bracket.switch_off()
        self.pending = None

    def detach(self) -> None:
        """Let go of the optimizer."""
        if self._bracket is not None:
            self._bracket.detach()
            self._bracket = None
        self.pending = None

    def hear(self, frame: Frame, findings: Sequence[Finding]) -> None:
        """Take in what the monitor judged."""
        self._frames.append(frame)
        self._findings.extend(findings)

    @torch.no_grad()
    def decide(
        self,
        context: StepContext,
        loss: Tensor | None,
        episodes: Sequence[Episode],
        *,
        known: Known | None = None,
        scale: Tensor | None = None,
        must_agree: bool = False,
        may_skip: bool = True,
    ) -> Decided | None:
        """Ask the remedies, clip, and remember the rest for the step; None without gradients.

        Args:
            context: Where in training this is.
            loss: Of this step, the same on all ranks.
            episodes: Faults that go on.
            known: What was measured already.
            scale: What a gradient scaler left in the gradients.
            must_agree: Whether ranks may have seen different things.
            may_skip: Whether any remedy may leave steps out.
        """
        self.pending = None
        if not self.roster.members:
            return None  # Lightning puts such an optimizer where there is none
        gradients = Gradients.of(self.roster, known=known, scale=scale)
        if not gradients.present:
            return None
        self._is_settled = True
        frames, findings, self._frames, self._findings = self._frames, self._findings, [], []
        moment = Moment(
            step=self.steps,
            gradients=gradients,
            optimizer_index=context.optimizer_index,
            loss=loss,
            is_first_look=self._bracket is None or self._bracket.evaluations == 0,
            has_scaler=context.has_scaler,
            frames=frames,
            findings=findings,
            lr_factor=self.cut,
            learning_rates=context.learning_rates,
            episodes=[e for e in episodes if e.last.optimizer_index == context.optimizer_index],
        )
        groups = self.optimizer.param_groups
        verdict = self.council.ask(moment)
        if must_agree:
            verdict = self._ranks.agree(verdict, len(groups), may_skip=may_skip)
        if not reads_rates_late(self.optimizer):
            verdict = replace(verdict, rates=[rate for rate in verdict.rates if rate.is_cut])
        self.lr_factors = self._where_rates_are(verdict.lr_factors(len(groups)))
        cuts = verdict.lr_factors(len(groups), cuts_only=True)
        self.cut = min(self._where_rates_are(cuts), default=1.0)
        clips = verdict.clips
        self.pending = Decided(
            verdict,
            context,
            self.steps,
            gradients.norm,
            clip_(gradients, clips, dry_run=self._dry_run) if clips else None,
            self.lr_factors,
            self.cut,
            moment.is_first_look,
        )
        return self.pending

    def _where_rates_are(self, factors: Sequence[float]) -> list[float]:
        wished = zip(factors, self.optimizer.param_groups, strict=True)
        return [factor if has_rate(group) else 1.0 for factor, group in wished]

    def _orders(self) -> Orders:
        if self.pending is None or self._dry_run:
            return Orders()
        return Orders(self.pending.verdict.skip, self.lr_factors)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "steps": self.steps,
            "lr_factors": list(self.lr_factors),
            "cut": self.cut,
            "remedies": self.council.state_dict(),
            "frames": [frame_to_dict(frame) for frame in self._frames],
            "findings": [finding.to_dict() for finding in self._findings],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; what was seen since does not count."""
        self.pending = None
        self._frames = [frame_from_dict(frame) for frame in state["frames"]]
        self._findings = [Finding.from_dict(finding) for finding in state["findings"]]
        self.steps, self.lr_factors = state["steps"], tuple(state["lr_factors"])
        self.cut = state["cut"]
        self.council.load_state_dict(state["remedies"])
