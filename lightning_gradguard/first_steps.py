"""What the first few steps show of a training in which acting does not work as one thinks.

In: optimizers that step. Out: a warning that names the problem and the way out, once. Changes
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from lightning_gradguard import trainers
from lightning_gradguard.eager import eager

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["Misplaced"]

_log: Final = logging.getLogger(__name__)

_STEPS_WATCHED: Final = 3


class Misplaced:
    """Look out for somebody who changes gradients before backward has made them.

    Under automatic optimisation backward runs inside the optimizer's step. A wrapper that clips at
    the top of its ``step`` clips what is thrown away.

    Args:
        optimizers: Watched for a few steps.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._left = _STEPS_WATCHED * len(optimizers)
        self._handles: list[RemovableHandle] = []
        for optimizer in optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before))
            self._handles.append(optimizer.register_step_post_hook(self._after))

    @property
    def is_over(self) -> bool:
        """Whether enough was seen."""
        return self._left <= 0

    def remove(self) -> None:
        """Stop looking; never from a hook: torch forbids to remove hooks while it runs them."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @eager
    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if closure is None or self.is_over:
            return None
        before = [p.grad for p in trainers.parameters_of(optimizer) if p.grad is not None]
        # A line search closes several times, and clips between: only the first time counts.
        looks = iter(([(gradient, _version(gradient)) for gradient in before],))

        def look_then_close() -> Any:  # noqa: ANN401 - whatever the closure returns
            for seen in looks:
                self._compare(optimizer, seen)
            return closure()

        rest = {name: value for name, value in kwargs.items() if name != "closure"}
        return (args[0], look_then_close, *args[2:]), rest

    def _after(self, *_: object) -> None:
        self._left -= 1

    @eager
    def _compare(
        self, optimizer: torch.optim.Optimizer, seen: Sequence[tuple[Tensor, int]]
    ) -> None:
        is_changed = any(_version(g) != version and bool(g.any()) for g, version in seen)
        if self.is_over or not is_changed:
            return
        self._left = 0
        _log.warning(
            "gradguard: %s changes gradients at the start of its step, but under automatic "
            "optimisation backward runs later, inside the step: what is clipped there is "
            "thrown away. Use the plain optimizer, and GradientGuard(clip=...).",
            type(optimizer).__name__,
        )


def _version(tensor: Tensor) -> int:
    try:
        return tensor._version  # noqa: SLF001 - torch has no other way to ask
    except RuntimeError:  # made in inference mode, where nobody counts
        return 0
