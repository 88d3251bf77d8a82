"""Hooks that run when an optimizer has stepped.

In: optimizers, and what to call. Out: one call for each step, until the optimizers are let go.
Changes no step.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final

import torch

from lightning_gradguard.eager import eager

__all__ = ["StepHooks"]


class _Hook:
    """A hook on one optimizer.

    A class that calls its parent's ``step`` in its own runs torch's hooks twice.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, hook: Callable[..., object]) -> None:
        self._hook, self._depth = hook, 0
        self._handles: Final = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    @eager
    def _before(self, *_: object) -> None:
        self._depth += 1

    @eager
    def _after(self, *args: object) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._hook(*args)

    def reset(self) -> None:
        self._depth = 0

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


class StepHooks:
    """At most one hook on each of some optimizers.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
        >>> hooks = StepHooks()
        >>> hooks.attach(optimizer, lambda *_: print("stepped")), optimizer in hooks
        (True, True)
        >>> optimizer.step()
        stepped
        >>> hooks.detach()
        >>> optimizer.step()
    """

    def __init__(self) -> None:
        # Optimizers beside their hooks, not their ids: those may be used again.
        self._hooks: list[tuple[weakref.ref[torch.optim.Optimizer], _Hook | None]] = []

    def __contains__(self, optimizer: torch.optim.Optimizer) -> bool:
        return any(known() is optimizer for known, _ in self._hooks)

    def attach(self, optimizer: torch.optim.Optimizer, hook: Callable[..., object]) -> bool:
        """Call a hook after each step of an optimizer.

        Args:
            optimizer: One that has no hook of ours yet.
            hook: Called with what torch gives its hooks, when the outermost step is over.

        Returns:
            Whether that can be: some optimizers have no step hooks. They count as attached.
        """
        try:
            known = _Hook(optimizer, hook)
        except AttributeError:
            known = None
        self._hooks = [entry for entry in self._hooks if entry[0]() is not None]
        self._hooks.append((weakref.ref(optimizer), known))
        return known is not None

    def reset(self) -> None:
        """Forget a step that ended in an error."""
        for _, hook in self._hooks:
            if hook is not None:
                hook.reset()

    def detach(self) -> None:
        """Let go of all optimizers."""
        while self._hooks:
            _, hook = self._hooks.pop()
            if hook is not None:
                hook.remove()
