"""All remedies of one optimizer, asked about one step.

In: a moment. Out: a verdict: everything that was decided, sorted by what it is about. A remedy
that fails is reported once and asked no more; the others go on.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from lightning_gradguard.remedies.base import (
    Clamp,
    Decision,
    GoBack,
    LearningRate,
    Moment,
    Remedy,
    Scale,
    ScaleUnits,
    Skip,
    Stop,
)
from lightning_gradguard.remedies.fit import check_fit
from lightning_gradguard.remedies.traits import check_allowed

__all__ = ["Council", "Verdict"]

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What was decided about one step.

    Attributes:
        clips: How to make gradients smaller.
        skips: Whether to leave the step out, and why.
        rates: What to multiply learning rates by.
        rollback: Where to go back to, or None.
        stop: Whether to end the training, or None.
    """

    clips: Sequence[Decision] = ()
    skips: Sequence[Skip] = ()
    rates: Sequence[LearningRate] = ()
    rollback: GoBack | None = None
    stop: Stop | None = None

    @classmethod
    def of(cls, decisions: Sequence[Decision]) -> Verdict:
        """Sort decisions: the farthest way back holds, and an error beats a stop."""
        rollbacks = [d for d in decisions if isinstance(d, GoBack)]
        stops = [d for d in decisions if isinstance(d, Stop)]
        return cls(
            clips=[d for d in decisions if isinstance(d, (Scale, ScaleUnits, Clamp))],
            skips=[d for d in decisions if isinstance(d, Skip)],
            rates=[d for d in decisions if isinstance(d, LearningRate)],
            rollback=min(rollbacks, key=lambda r: r.before_step, default=None),
            stop=max(stops, key=lambda stop: stop.as_error, default=None),
        )

    @property
    def skip(self) -> Tensor | None:
        """Whether anybody wants to leave the step out, shape ``()``; None where nobody may."""
        if not self.skips:
            return None
        flag = self.skips[0].when
        for other in self.skips[1:]:
            flag = flag | other.when.to(flag.device)
        return flag

    def lr_factors(self, num_groups: int, *, cuts_only: bool = False) -> list[float]:
        """Return the smallest factor for each parameter group.

        Args:
            num_groups: How many there are.
            cuts_only: Whether to leave out limits of this step alone.
        """
        factors = [1.0] * num_groups
        for rate in (rate for rate in self.rates if rate.is_cut or not cuts_only):
            for group in range(num_groups) if rate.groups is None else rate.groups:
                factors[group] = min(factors[group], rate.factor)
        return factors


@dataclass(eq=False)
class Council:
    """Remedies of one optimizer.

    Attributes:
        remedies: Asked in this order; the optimizer's own copies.
        on_error: ``"raise"`` lets an error of a remedy end the training.
        given_up: Remedies that failed, one sentence each.

    State:
        That of the remedies, as JSON types.
    """

    remedies: list[Remedy]
    on_error: str = "warn"
    given_up: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, remedies: Sequence[Remedy], *, on_error: str = "warn") -> Council:
        """Make a council of copies of remedies.

        Raises:
            TypeError: One of them cannot be copied.
        """
        return cls([_copy_of(remedy) for remedy in remedies], on_error)

    @torch.no_grad()
    def ask(self, moment: Moment) -> Verdict:
        """Ask everybody about a step."""
        verdicts: list[Decision] = []
        for remedy in tuple(self.remedies):
            try:
                decisions = list(remedy.decide(moment) or ())
                for decision in decisions:  # an impossible one is this remedy's affair
                    check_allowed(decision, remedy)
                    check_fit(decision, moment.gradients.roster)
            except Exception as error:
                if self.on_error == "raise":
                    raise
                self._give_up(remedy, f"at step {moment.step}", error)
            else:
                verdicts += decisions
        return Verdict.of(verdicts)

    def _give_up(self, remedy: Remedy, when: str, error: Exception) -> None:
        self.remedies = [other for other in self.remedies if other is not remedy]
        reason = f"{name_of(remedy)} failed {when}: {type(error).__name__}: {error}"
        self.given_up.append(reason)
        _log.critical("gradguard: the run is no longer protected by a remedy. %s", reason)

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what the remedies keep, by type and order."""
        states: list[dict[str, Any]] = []
        for remedy in tuple(self.remedies):
            try:
                if hasattr(remedy, "state_dict"):
                    states.append({"type": name_of(remedy), "state": remedy.state_dict()})
            except Exception as error:
                if self.on_error == "raise":
                    raise
                self._give_up(remedy, "to say what it has learned", error)
        return states

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go on from `state_dict`; a remedy that it knows nothing of starts afresh."""
        left = list(state)
        for remedy in self.remedies:
            load = getattr(remedy, "load_state_dict", None)
            saved = next((s for s in left if s["type"] == name_of(remedy)), None)
            if load is not None and saved is not None:
                left.remove(saved)
                load(saved["state"])


def _copy_of(remedy: Remedy) -> Remedy:
    try:
        return copy.deepcopy(remedy)
    except Exception as error:
        msg = (
            f"Each optimizer gets a copy of its own of `{name_of(remedy)}`, which cannot be copied "
            f"({error}). Let it open files and take locks when it first needs them, or give it a "
            "`__deepcopy__`."
        )
        raise TypeError(msg) from error


def name_of(remedy: Remedy) -> str:
    """Return the name of a remedy: its type, and that of what it wraps."""
    inner = getattr(remedy, "remedy", None)
    name = type(remedy).__name__
    return name if inner is None else f"{name}({name_of(inner)})"
