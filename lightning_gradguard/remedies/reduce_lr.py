"""Cut the learning rate while training is in trouble, and let it heal.

In: faults that go on. Out: a factor that the user's scheduler never sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, LearningRate, Moment
from lightning_gradguard.remedies.faults import as_kinds, describe, fresh_faults, open_alarms

__all__ = ["ReduceLearningRate"]

_WELL_STEPS: Final = 100
"""Training that long without an alarm has shown that its rate can be right."""


class ReduceLearningRate:
    """Halve the learning rate on a fault; grow it back after quiet steps.

    A step is quiet while no alarm is open, of whatever kind. Where the fault came back, the rate
    heals to half of what it was then and no further.

    Args:
        kinds: Kinds of finding to act on.
        factor: What a cut multiplies the rate by, in ``(0, 1)``.
        floor: Smallest product of all cuts, in ``(0, 1]``.
        cooldown_steps: Steps between two cuts.
        recovery_steps: Quiet steps before the rate grows, and in how many it doubles.
        early_recovery_steps: The same after trouble that came before training had gone well for
            a hundred steps: then it is the rate that is wrong, and not a bad stretch. None takes
            ``recovery_steps``.

    Raises:
        ValueError: A number is out of range, or there is no such kind.

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of, trouble
        >>> remedy = ReduceLearningRate(recovery_steps=10)
        >>> cut = remedy.decide(moment_of([1.0], step=5, episodes=[trouble("diverging", step=4)]))
        >>> cut[0].factor, cut[0].why
        (0.5, 'diverging since step 4: trouble')
        >>> remedy.decide(moment_of([1.0], step=15))[0].factor  # ten quiet steps later
        0.5358867312681466
    """

    acts = frozenset({"learning rate"})

    def __init__(
        self,
        kinds: Sequence[str] | str = ("diverging", "exploding"),
        *,
        factor: float = 0.5,
        floor: float = 0.01,
        cooldown_steps: int = 20,
        recovery_steps: int = 100,
        early_recovery_steps: int | None = None,
    ) -> None:
        early = recovery_steps if early_recovery_steps is None else early_recovery_steps
        options.check_positive(cooldown_steps=cooldown_steps, recovery_steps=recovery_steps)
        options.check_positive(early_recovery_steps=early)
        options.check_fraction(factor=factor)
        options.check_share("floor", floor)
        self.kinds = as_kinds(kinds)
        self.factor, self.floor = factor, floor
        self.cooldown_steps, self.recovery_steps = cooldown_steps, recovery_steps
        self.early_recovery_steps = early
        self._now, self._ceiling = 1.0, 1.0
        self._last_cut, self._seen_until = -cooldown_steps, -1
        self._alarmed_until, self._patience_steps = -1, early

    @property
    def lr_factor(self) -> float:
        """What the rate is multiplied by now."""
        return self._now

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Cut, heal, or leave the rate as it is."""
        faults = fresh_faults(moment, self.kinds, self._seen_until + 1)
        if not moment.is_first_look:
            return self._as_before()
        alarms = open_alarms(moment)
        was_well = moment.step - self._alarmed_until > _WELL_STEPS
        self._alarmed_until = max([self._alarmed_until, *(alarm.last.step for alarm in alarms)])
        if faults:
            self._seen_until = max(fault.last.step for fault in faults)
            if moment.step - self._last_cut >= self.cooldown_steps and self._now > self.floor:
                return [self._cut(moment.step, describe(faults[0]), was_well=was_well)]
        elif self._now < self._ceiling and not alarms and self._is_quiet(moment.step):
            return [self._heal()]
        return self._as_before()

    def _as_before(self) -> Sequence[Decision]:
        return [LearningRate(self._now)] if self._now < 1.0 else ()

    def _is_quiet(self, step: int) -> bool:
        return step - max(self._last_cut, self._alarmed_until) >= self._patience_steps

    def _cut(self, step: int, why: str, *, was_well: bool) -> LearningRate:
        has_healed = self._last_cut >= 0 and step - self._last_cut > self._patience_steps
        if has_healed:
            self._ceiling = max(self.floor, self._now * self.factor)
        if self._now == 1.0 or has_healed:
            self._patience_steps = self.recovery_steps if was_well else self.early_recovery_steps
        self._now = max(self.floor, self._now * self.factor)
        self._last_cut = step
        return LearningRate(self._now, why)

    def _heal(self) -> LearningRate:
        grown = self._now * 2.0 ** (1.0 / self._patience_steps)
        self._now = min(self._ceiling, grown)
        why = "quiet for long: the rate has healed" if self._now == self._ceiling else ""
        return LearningRate(self._now, why)

    def state_dict(self) -> dict[str, Any]:
        """Return the factor and when it changed, as JSON types."""
        return {
            "now": self._now,
            "ceiling": self._ceiling,
            "last_cut": self._last_cut,
            "seen_until": self._seen_until,
            "alarmed_until": self._alarmed_until,
            "patience_steps": self._patience_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._now, self._ceiling = state["now"], state["ceiling"]
        self._last_cut, self._seen_until = state["last_cut"], state["seen_until"]
        self._alarmed_until = state["alarmed_until"]
        self._patience_steps = state["patience_steps"]
