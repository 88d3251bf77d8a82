"""Go back to a state from before the trouble, and go on more slowly.

In: faults that go on. Out: the wish to go back. Keeping states is the guard's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, GoBack, Moment
from lightning_gradguard.remedies.faults import as_kinds, describe, fresh_faults
from lightning_gradguard.remedies.reduce_lr import ReduceLearningRate

__all__ = ["Rollback"]


class Rollback:
    """Restore model, optimizer, scaler and schedule, then train with a lower rate.

    The data goes on from where it is, and random state is not restored. The rate heals as in
    `ReduceLearningRate`.

    Args:
        kinds: Kinds of finding to act on.
        margin_steps: How many steps before the first evidence a state must be from: faults are
            found late.
        patience_steps: Steps in a row that must not be finite before ``"nonfinite"`` counts:
            a broken batch comes alone, a broken model does not heal; ``>= 1``.
        max_rollbacks: After so many, only the rate is cut; ``>= 1``.
        rate: Cuts the rate; None takes `ReduceLearningRate` for the same kinds.
        every_n_steps: A state is kept every so many steps, or every five looks of the monitor
            if that is more and it does not look at every step; ``>= 1``.
        generations: How many states are kept; ``>= 1``.
        max_bytes: Most host memory that they may take; None is a quarter of what the machine has,
            or its container, shared by the processes that train there.

    Raises:
        ValueError: A number is out of range, or there is no such kind.

    Cost:
        ``generations`` copies of weights, buffers and optimizer state in host memory, and one
        copy of them every ``every_n_steps``. Of frozen parameters there is one copy in all.

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of, trouble
        >>> faults = [trouble("diverging", step=60)]
        >>> Rollback().decide(moment_of([1.0], step=61, episodes=faults))[0].before_step
        50
    """

    acts = frozenset({"rollback", "learning rate"})

    def __init__(
        self,
        kinds: Sequence[str] | str = ("diverging",),
        *,
        margin_steps: int = 10,
        patience_steps: int = 3,
        max_rollbacks: int = 3,
        rate: ReduceLearningRate | None = None,
        every_n_steps: int = 50,
        generations: int = 4,
        max_bytes: int | None = None,
    ) -> None:
        self.kinds = as_kinds(kinds)
        options.check_count("patience_steps", patience_steps)
        options.check_count("max_rollbacks", max_rollbacks)
        options.check_count("every_n_steps", every_n_steps)
        options.check_count("generations", generations)
        options.check_count("margin_steps", margin_steps, least=0)
        options.check_count("max_bytes", 1 if max_bytes is None else max_bytes)
        self._rate = ReduceLearningRate(self.kinds) if rate is None else rate
        _check_rate(self._rate, self.kinds)
        self.patience_steps = patience_steps
        self.margin_steps, self.max_rollbacks = margin_steps, max_rollbacks
        self.every_n_steps, self.generations = every_n_steps, generations
        self.max_bytes = max_bytes
        self._done, self._seen_until, self._in_a_row = 0, -1, 0

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Ask to go back on a new fault, and for the rate that follows."""
        for frame in moment.frames:
            self._in_a_row = self._in_a_row + 1 if frame.has_nonfinite else 0
        if self._in_a_row < self.patience_steps:
            # One broken batch is no broken model.
            alive = [e for e in moment.episodes if e.last.kind != "nonfinite"]
            moment = replace(moment, episodes=alive)
        faults = fresh_faults(moment, self.kinds, self._seen_until + 1)
        before = self._rate.lr_factor
        decisions = list(self._rate.decide(moment))
        was_cut = bool(faults) and self._rate.lr_factor < before
        if not moment.is_first_look or not was_cut or self._done >= self.max_rollbacks:
            return decisions
        self._done += 1
        self._seen_until = max(fault.last.step for fault in faults)
        first = min(fault.first.since_step for fault in faults)
        return [GoBack(max(0, first - self.margin_steps), describe(faults[0])), *decisions]

    def state_dict(self) -> dict[str, Any]:
        """Return how often it went back, and the rate, as JSON types."""
        rate = self._rate.state_dict()
        seen = {"seen_until": self._seen_until, "in_a_row": self._in_a_row}
        return {"done": self._done, **seen, "rate": rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._done, self._in_a_row = state["done"], state["in_a_row"]
        self._seen_until = state["seen_until"]
        self._rate.load_state_dict(state["rate"])


def _check_rate(rate: object, kinds: Sequence[str]) -> None:
    """Raise unless the rate is cut whenever the run goes back: else it would end the same way.

    Raises:
        ValueError: It is not cut for some of the kinds.
    """
    if not isinstance(rate, ReduceLearningRate) or not set(kinds) <= set(rate.kinds):
        msg = f"`rate` must be a ReduceLearningRate for {', '.join(kinds)}, got {rate!r}."
        raise ValueError(msg)
