"""Stand around an optimizer's step: leave it out, or make it smaller.

In: an optimizer, and what to do when its gradients are final. Out: a step with other learning
rates, or none. Everything is as before when the step is over, so that schedulers, checkpoints and
other callbacks only ever see what is the user's.

A hook before the step alone would be too early where the step itself runs backward, as under
Lightning: then the hook wraps the closure, and acts after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_gradguard import devices
from lightning_gradguard.actions.rates import Rates
from lightning_gradguard.actions.step_state import StepState, parameters_of
from lightning_gradguard.eager import eager

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["Bracket", "Orders"]


@dataclass(frozen=True, eq=False)
class Orders:
    """What to do to one step.

    Attributes:
        skip: Whether to leave it out: a flag on the device, shape ``()``, or None for no.
        lr_factors: What to multiply the learning rate of each group by; empty for nothing.
    """

    skip: Tensor | None = None
    lr_factors: Sequence[float] = ()


class Bracket:
    """Stand around each step of one optimizer.

    Args:
        optimizer: The optimizer.
        final_orders: Asked when the gradients are final, after every clipping; called again for
            every evaluation of a line search.
        after: Told when the step is over, with the flag whether it was left out.

    Attributes:
        evaluations: How often gradients were final in the step that goes on; 0 outside of one.
        skipped: Whether that step is left out: known, or a flag on the device.

    Cost:
        To leave a step out asks the device for the flag, but for fused optimizers, which can be
        told on the device.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        final_orders: Callable[[], Orders],
        after: Callable[[bool | Tensor], None],
    ) -> None:
        self._optimizer = optimizer
        self._final_orders, self._after = final_orders, after
        self._handles: list[RemovableHandle] = []
        self._depth, self._is_off = 0, False
        self._early_factors: Callable[[], Sequence[float]] | None = None
        self._rates = Rates(optimizer)
        self._forget()

    def _forget(self) -> None:
        self.evaluations, self._is_in = 0, False
        self.skipped: bool | Tensor = False
        self._gradients: list[tuple[nn.Parameter, Tensor, Tensor | None]] = []
        self._found_inf: list[Any] | None = None
        self._undo: StepState | None = None

    @property
    def is_in(self) -> bool:
        """Whether a step is going on."""
        return self._is_in

    def attach(self, early_factors: Callable[[], Sequence[float]], *, may_skip: bool) -> None:
        """Stand around every step from now on.

        Args:
            early_factors: Learning rate factors, for optimizers that read their rates before
                they evaluate anything.
            may_skip: Whether steps may be left out: then what a line search changes is kept.

        Raises:
            AttributeError: The optimizer has no step hooks.
        """
        self._early_factors, self._may_skip = early_factors, may_skip
        pre = self._optimizer.register_step_pre_hook(self._before)
        post = self._optimizer.register_step_post_hook(self._over)
        self._handles = [pre, post]
        _let_earlier_ones_go_last(self._optimizer, self)

    @eager
    def reset(self) -> None:
        """Undo what a step left that ended in an error."""
        self._depth = 0
        self._restore()
        self._forget()

    def switch_off(self) -> None:
        """Act no more, and undo what was done to the step that goes on.

        The hooks stay until `detach`: this may be called from one of them, and torch forbids to
        remove hooks while it runs them.
        """
        self._is_off = True
        self.reset()

    def detach(self) -> None:
        """Let go of the optimizer, and undo what an interrupted step left."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.reset()

    @eager
    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._is_off:
            return None
        self._depth += 1
        if self._depth > 1:
            return None  # a class that calls its parent's step in its own
        self._restore()  # of a step that was interrupted, by an error that somebody caught
        self._forget()
        self._is_in = True
        kwargs = dict(kwargs)
        closure = kwargs.pop("closure", None) or (args[1] if len(args) > 1 else None)
        if _searches_lines(optimizer):
            if self._may_skip:
                self._undo = StepState(optimizer)
            if self._early_factors is not None:
                self._rates.scale_(self._early_factors())
        if closure is None:
            self._act_()
            return None

        def closure_then_act() -> Any:  # noqa: ANN401 - whatever the closure returns
            try:
                result = closure()
            except BaseException:
                self.reset()  # whoever catches this may try again
                raise
            self._act_()
            return result

        return (args[0], closure_then_act, *args[2:]), kwargs

    @eager
    def _act_(self) -> None:
        """Do what was ordered, now that nobody else will touch the gradients."""
        if self._is_off:
            return
        orders = self._final_orders()
        self.evaluations += 1
        if orders.skip is not None:
            self._skip_(orders.skip)
        if not _searches_lines(self._optimizer):
            self._rates.scale_(orders.lr_factors)

    def _skip_(self, flag: Tensor) -> None:
        if _takes_found_inf(self._optimizer) and not devices.is_host(flag.device):
            self._tell_on_device_(flag)
        elif bool(flag) or self.skipped is True:
            self.skipped = True
            is_of_torch = _is_of_torch(self._optimizer)
            if self._undo is None and not is_of_torch:
                self._undo = StepState(self._optimizer)  # some decay weights all the same
            self._gradients = []  # those of an earlier look of a line search
            for parameter in parameters_of(self._optimizer):
                if parameter.grad is not None:
                    # Others than torch's may read gradients without asking for None.
                    instead = None if is_of_torch else torch.zeros_like(parameter.grad)
                    self._gradients.append((parameter, parameter.grad, instead))
                    parameter.grad = instead

    def _tell_on_device_(self, flag: Tensor) -> None:
        """Let a fused optimizer leave the step out itself, as it does for gradient scalers."""
        optimizer: Any = self._optimizer
        before = [getattr(optimizer, "found_inf")] if hasattr(optimizer, "found_inf") else []  # noqa: B009 - no such attribute is declared
        found = flag.to(torch.float32)
        if before and before[0] is not None:
            found = torch.maximum(found, before[0].to(found))
        self._found_inf, optimizer.found_inf = before, found
        self.skipped = flag

    @eager
    def _over(self, *_: object) -> None:
        self._depth -= 1
        if self._depth > 0 or self._is_off:
            return
        skipped = self.skipped
        if self._undo is not None and skipped is True:
            self._undo.restore_()
        self._restore()
        self._forget()
        self._after(skipped)

    def _restore(self) -> None:
        """Put everything back that was changed for one step."""
        for parameter, gradient, instead in self._gradients:
            if parameter.grad is instead:
                parameter.grad = gradient
        self._rates.restore_()
        if self._found_inf is not None:
            optimizer: Any = self._optimizer
            if self._found_inf:
                optimizer.found_inf = self._found_inf[0]
            elif hasattr(optimizer, "found_inf"):
                del optimizer.found_inf
        self._gradients, self._found_inf = [], None


def _let_earlier_ones_go_last(optimizer: torch.optim.Optimizer, latest: Bracket) -> None:
    """Nest brackets: who comes in first, and saw the user's own, has to put it back last."""
    hooks: Any = optimizer._optimizer_step_post_hooks  # noqa: SLF001 - torch runs them as registered
    for key, hook in tuple(hooks.items()):
        owner = getattr(hook, "__self__", None)
        if isinstance(owner, Bracket) and owner is not latest:
            hooks.move_to_end(key)


def _is_of_torch(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is known to leave parameters without a gradient alone."""
    return type(optimizer).__module__.startswith("torch.optim")


def _searches_lines(optimizer: torch.optim.Optimizer) -> bool:
    return isinstance(optimizer, torch.optim.LBFGS)


def _takes_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a flag on the device can leave the step out: fused, and past its first step.

    In its first step a fused optimizer would keep whatever was in the memory of its new state.
    """
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return False
    trained = (p for p in parameters_of(optimizer) if p.grad is not None)
    return bool(optimizer.state) and all(parameter in optimizer.state for parameter in trained)
