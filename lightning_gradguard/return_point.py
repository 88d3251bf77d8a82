"""When to keep a state of the training, and when to go back to one.

In: completed steps, and wishes to go back. Out: a training as it was some steps ago.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn

from lightning_gradguard.actions.states import Generations, Stateful
from lightning_gradguard.remedies.base import GoBack
from lightning_gradguard.remedies.rollback import Rollback

__all__ = ["ReturnPoint"]

_LOOKS_APART: Final = 5
"""Four states then reach back twenty looks, and no detector needs more than ten."""


class ReturnPoint:
    """Keep states while all is well, and go back to one of them on request.

    Args:
        states: Where they are kept.
        every_n_steps: Completed steps from one state to the next.
        looks_every: Returns the number of steps from one look of the monitor to the next. Faults
            are found by the look, so that states are at least five looks apart where it does not
            look at every step.
        extra: Returns what is to be kept with a state, such as what detectors have learned.
        restore_extra: Takes that back.
    """

    def __init__(
        self,
        states: Generations,
        *,
        every_n_steps: int,
        looks_every: Callable[[], int] = lambda: 1,
        extra: Callable[[], Any] = lambda: None,
        restore_extra: Callable[[Any], object] = lambda _: None,
    ) -> None:
        self._states, self._every_n_steps, self._looks_every = states, every_n_steps, looks_every
        self._extra, self._restore_extra = extra, restore_extra
        self._last_kept: int | None = None

    @classmethod
    def of(
        cls,
        rollbacks: Sequence[Rollback],
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        others: Callable[[], Sequence[Stateful]],
        *,
        looks_every: Callable[[], int],
        max_bytes: int | None,
        extra: Callable[[], Any],
        restore_extra: Callable[[Any], object],
    ) -> ReturnPoint:
        """Make one that serves all remedies that may go back, within the tightest of their limits.

        Args:
            rollbacks: At least one.
            model: The model that is trained.
            optimizers: All of its optimizers.
            others: Returns schedules, scalers and the like.
            looks_every: As for the class.
            max_bytes: Most host memory, where none of the remedies has a limit; None is no limit.
            extra: As for the class.
            restore_extra: As for the class.
        """
        limits = [rollback.max_bytes for rollback in rollbacks if rollback.max_bytes is not None]
        most, budget = max(r.generations for r in rollbacks), min(limits, default=max_bytes)
        states = Generations(model, optimizers, others, most=most, max_bytes=budget)
        every = min(rollback.every_n_steps for rollback in rollbacks)
        return cls(
            states,
            every_n_steps=every,
            looks_every=looks_every,
            extra=extra,
            restore_extra=restore_extra,
        )

    def keep(self, steps: Mapping[int, int]) -> None:
        """Keep the state, if it is time to, or if there is none that still fits.

        Args:
            steps: Completed steps of each optimizer.
        """
        now = max(steps.values(), default=0)
        looks_every = self._looks_every()
        least = _LOOKS_APART * looks_every if looks_every > 1 else 1
        distance = max(self._every_n_steps, least)
        is_due = self._last_kept is None or now - self._last_kept >= distance
        if is_due or self._states.is_outdated:
            self._states.keep(steps, extra=copy.deepcopy(self._extra()))
            self._last_kept = now

    def go_back_(self, wish: GoBack, optimizer_index: int, steps: Mapping[int, int]) -> bool:
        """Go back, if there is a state that is old enough.

        Args:
            wish: How far.
            optimizer_index: Whose steps the wish counts.
            steps: Completed steps of each optimizer, which do not go back.
        """
        if not self._states.find(wish.before_step, optimizer_index):
            return False
        self._restore_extra(self._states.restore_(wish.before_step, optimizer_index))
        self._last_kept = max(steps.values(), default=0)
        return True
