"""What the first few steps show of a training in which acting does not work as one thinks.

In: optimizers that step. Out: a warning that names the problem and the way out, once. Changes
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from lightning_gradguard import trainers
from lightning_gradguard.eager import eager
from lightning_gradguard.writes import num_writes

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["Bypassed", "Misplaced"]

_log: Final = logging.getLogger(__name__)

_STEPS_WATCHED: Final = 3
_BATCHES_WATCHED: Final = 100


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
        looks = iter(([(gradient, num_writes(gradient)) for gradient in before],))

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
        is_changed = any(num_writes(g) != version and bool(g.any()) for g, version in seen)
        if self.is_over or not is_changed:
            return
        self._left = 0
        _log.warning(
            "gradguard: %s changes gradients at the start of its step, but under automatic "
            "optimisation backward runs later, inside the step: what is clipped there is "
            "thrown away. Use the plain optimizer, and GradientGuard(clip=...).",
            type(optimizer).__name__,
        )


class Bypassed:
    """Look out for weights that are trained by an optimizer that the trainer does not know.

    Args:
        model: The model that is trained.
        optimizers: Those that the trainer knows.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        self._left, self._batches_left = _STEPS_WATCHED, _BATCHES_WATCHED
        known = self._known
        strangers = [
            (name, p)
            for name, p in model.named_parameters()
            if p.requires_grad and id(p) not in known
        ]
        self._strangers = [(name, p, num_writes(p)) for name, p in strangers]
        self._with_gradient: set[int] = set()

    @property
    def _known(self) -> set[int]:
        return {id(p) for optimizer in self._optimizers for p in trainers.parameters_of(optimizer)}

    @property
    def is_over(self) -> bool:
        """Whether enough was seen, or there is nothing to see."""
        return min(self._left, self._batches_left) <= 0 or not self._strangers

    def after_backward(self) -> None:
        """Take note of who gets a gradient; others may be averages, which nobody trains."""
        self._with_gradient |= {id(p) for _, p, _ in self._strangers if p.grad is not None}

    def end_batch(self) -> None:
        """Count the batches in which weights have changed that nobody whom we know changes."""
        known = self._known  # once more: parameter groups may be added
        trained = [
            name
            for name, p, version in self._strangers
            if id(p) in self._with_gradient and id(p) not in known and num_writes(p) != version
        ]
        self._strangers = [(name, p, num_writes(p)) for name, p, _ in self._strangers]
        self._with_gradient = set()
        self._batches_left -= 1
        self._left -= bool(trained)
        if trained and self._left == 0:
            more = f" and {len(trained) - 1} more" if len(trained) > 1 else ""
            _log.warning(
                "gradguard cannot guard %s%s: something that the trainer does not know changes "
                "them. If it is an optimizer, return it from `configure_optimizers`.",
                trained[0],
                more,
            )
