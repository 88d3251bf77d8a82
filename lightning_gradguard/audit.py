"""What a guard did, as records.

In: decisions that were carried out, or would have been. Out: one `Action` each, and counts of all.
Decides nothing.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from lightning_gradguard import checks

__all__ = ["Action", "Audit", "action_line", "is_clipped"]

_MOST_ACTIONS: Final = 10_000
"""Older records are dropped, so that a month-long run keeps a bounded memory; counts go on."""

_MOST_STEPS_NAMED: Final = 5


@dataclass(frozen=True, kw_only=True)
class Action:
    """One thing that a guard did.

    Attributes:
        what: ``"clip"``, ``"skip"``, ``"reduce_lr"``, ``"restore_lr"``, ``"rollback"``,
            ``"stop"``, ``"raise"`` or ``"give_up"`` (of a remedy that failed).
        step: Optimizer step that it concerns.
        why: The reason, in one sentence without a full stop.
        optimizer_index: Position of the optimizer.
        epoch: Epoch of the step.
        numbers: What it rests on, such as ``norm``, ``limit``, ``coefficient``, ``lr_factor``.
        dry_run: Whether it would have been done, but was not.
    """

    what: str
    step: int
    why: str = ""
    optimizer_index: int = 0
    epoch: int = 0
    numbers: Mapping[str, float] = field(default_factory=dict)
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON types; what is not finite is None."""
        numbers = {k: x if math.isfinite(x) else None for k, x in self.numbers.items()}
        return {**asdict(self), "numbers": numbers}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Action:
        """Rebuild a record from `to_dict`; unknown keys are ignored.

        Raises:
            KeyError, TypeError, AttributeError: It was made by something else.
        """
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        known["numbers"] = {k: math.nan if x is None else x for k, x in known["numbers"].items()}
        found = cls(**known)
        checks.check_types(str, (found.what, found.why, *found.numbers))
        checks.check_types(int, (found.step, found.epoch, found.optimizer_index))
        checks.check_types((int, float), found.numbers.values())
        return found


def is_clipped(coefficient: float) -> bool:
    """Whether a coefficient is below 1 by more than norms are good to.

    Example:
        >>> is_clipped(0.5), is_clipped(1.0 - 1e-8), is_clipped(float("nan"))
        (True, False, False)
    """
    return coefficient < 1.0 - 1e-5


_DONE: Final = {
    "clip": ("clipped", "would have clipped"),
    "skip": ("left out this step", "would have left out this step"),
    "reduce_lr": ("cut the learning rate", "would have cut the learning rate"),
    "restore_lr": ("restored the learning rate", "would have restored the learning rate"),
    "rollback": ("went back", "would have gone back"),
    "stop": ("stops the training", "would have stopped the training"),
    "raise": ("ends the training", "would have ended the training"),
    "give_up": ("can no longer help", "can no longer help"),
}


def action_line(action: Action) -> str:
    """Say an action in one line.

    Example:
        >>> action_line(Action(what="skip", step=12, why="loss is NaN", numbers={"norm": 4.25}))
        'step 12  left out this step: loss is NaN (norm 4.25)'
    """
    done = _DONE.get(action.what, (action.what, f"would have done: {action.what}"))
    why = f": {action.why}" if action.why else ""
    numbers = ", ".join(f"{k.replace('_', ' ')} {x:.3g}" for k, x in action.numbers.items())
    return f"step {action.step}  {done[action.dry_run]}{why}{f' ({numbers})' if numbers else ''}"


class Audit:
    """Keep the latest records, and count all.

    Attributes:
        counts: How often each thing was done.
        steps: Optimizer steps that were judged.
        dry_run: Whether nothing is really done.

    State:
        Records, counts and sums, as JSON types.

    Example:
        >>> audit = Audit()
        >>> audit.note_step(1.0), audit.note_step(0.5)
        (None, None)
        >>> list(audit.lines())[:1]
        ['clipped 1 of 2 steps (50 %), to 0.5 of their norm on the mean']
    """

    def __init__(self, *, dry_run: bool = False) -> None:
        self.dry_run = dry_run
        self.counts: Counter[str] = Counter()
        self.steps = 0
        self._actions: deque[Action] = deque(maxlen=_MOST_ACTIONS)
        self._clipped_sum = 0.0
        self._coefficient_sum = 0.0
        self._limited_sum = 0.0
        self._first: dict[str, list[int]] = {}

    @property
    def actions(self) -> tuple[Action, ...]:
        """The latest records, oldest first."""
        return tuple(self._actions)

    def note(self, action: Action) -> None:
        """Keep a record; clipping is counted by `note_step`."""
        if action.what != "clip":
            self.counts[action.what] += 1
        self._actions.append(action)
        steps = self._first.setdefault(action.what, [])
        if len(steps) < _MOST_STEPS_NAMED and action.step not in steps:
            steps.append(action.step)

    def note_step(self, coefficient: float, *, limit: float = 1.0) -> None:
        """Count a step.

        Args:
            coefficient: What clipping multiplied its gradient norm by; NaN for nothing.
            limit: What its learning rate was multiplied by for this step alone.
        """
        self.steps += 1
        if limit < 1.0:
            self.counts["limit"] += 1
            self._limited_sum += limit
        known = coefficient if math.isfinite(coefficient) else 1.0
        self._coefficient_sum += min(known, 1.0)
        if is_clipped(known):
            self.counts["clip"] += 1
            self._clipped_sum += known

    def lines(self) -> Iterator[str]:
        """Say what was done in all, one sentence each."""
        if clipped := self.counts["clip"]:
            yield self._clipping(clipped)
            lost = 1.0 - self._coefficient_sum / self.steps
            if lost >= 0.005:
                yield (
                    f"clipping {'would cost' if self.dry_run else 'cost'} about {100 * lost:.0f} % "
                    "of the effective learning rate; less where the optimizer divides by the "
                    "gradient's own size, as Adam does"
                )
        if limited := self.counts["limit"]:
            done = "would have held back" if self.dry_run else "held back"
            yield (
                f"{done} {limited} of {self.steps} steps, to {self._limited_sum / limited:.2g} of "
                "their learning rate on the mean"
            )
        for what, steps in self._first.items():
            if what != "clip":
                done = _DONE.get(what, (what, what))[self.dry_run]
                yield f"{done.replace('this step', _steps(steps, self.counts[what]))}" + (
                    "" if "this step" in done else f" at {_steps(steps, self.counts[what])}"
                )

    def _clipping(self, clipped: int) -> str:
        share = 100.0 * clipped / max(1, self.steps)
        mean = self._clipped_sum / clipped
        done = _DONE["clip"][self.dry_run]
        return (
            f"{done} {clipped} of {self.steps} steps ({_percent(share)} %), "
            f"to {mean:.2g} of their norm on the mean"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "actions": [action.to_dict() for action in self._actions],
            "counts": dict(self.counts),
            "steps": self.steps,
            "clipped_sum": self._clipped_sum,
            "coefficient_sum": self._coefficient_sum,
            "limited_sum": self._limited_sum,
            "first": {what: list(steps) for what, steps in self._first.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._actions = deque(map(Action.from_dict, state["actions"]), maxlen=_MOST_ACTIONS)
        self.counts = Counter(state["counts"])
        self.steps = state["steps"]
        self._clipped_sum = state["clipped_sum"]
        self._coefficient_sum = state["coefficient_sum"]
        self._limited_sum = state["limited_sum"]
        self._first = {what: list(steps) for what, steps in state["first"].items()}


def _percent(share: float) -> str:
    return f"{share:.0f}" if share >= 10.0 else f"{share:.2g}"


def _steps(steps: list[int], count: int) -> str:
    """Name steps, the first few of many.

    Example:
        >>> _steps([3], 1), _steps([3, 4], 2), _steps([1, 2], 9)
        ('step 3', 'steps 3 and 4', '9 steps, the first of them 1 and 2')
    """
    named = " and ".join(filter(None, [", ".join(map(str, steps[:-1])), str(steps[-1])]))
    if count > len(steps):
        return f"{count} steps, the first of them {named}"
    return f"step{'s' if len(steps) > 1 else ''} {named}"
