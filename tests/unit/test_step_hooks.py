"""One call for each step of an optimizer, until it is let go."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from lightning_gradguard.step_hooks import StepHooks
from tests.bracketed import Nested


class Breaks(Nested):
    """Fails within its step, the first time."""

    has_failed = False

    def step(self, closure=None):
        def fails_once():
            if not self.has_failed:
                self.has_failed = True
                raise RuntimeError

        return super().step(fails_once)


def hooked(kind=torch.optim.SGD):
    """Return an optimizer, hooks on it, and the list of its steps."""
    optimizer, hooks, steps = kind([nn.Parameter(torch.ones(1))], lr=0.1), StepHooks(), []
    assert hooks.attach(optimizer, lambda stepped, *_: steps.append(stepped))
    return optimizer, hooks, steps


@pytest.mark.parametrize("kind", [torch.optim.SGD, Nested])
def test_a_step_is_told_once_however_it_is_made(kind) -> None:
    optimizer, _hooks, steps = hooked(kind)
    for _ in range(3):
        optimizer.step()
    assert steps == [optimizer] * 3


def test_after_a_step_that_failed_the_next_one_is_told_once() -> None:
    optimizer, hooks, steps = hooked(Breaks)
    with pytest.raises(RuntimeError):
        optimizer.step()
    assert steps == []
    hooks.reset()
    optimizer.step()
    assert steps == [optimizer]


def test_what_is_let_go_is_told_of_no_more() -> None:
    optimizer, hooks, steps = hooked()
    assert optimizer in hooks
    hooks.detach()
    optimizer.step()
    assert steps == []
    assert optimizer not in hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_an_optimizer_without_step_hooks_is_known_but_never_told_of() -> None:
    class Strange:
        pass

    strange, hooks = Strange(), StepHooks()
    assert not hooks.attach(strange, print)
    assert strange in hooks
    hooks.reset()
    hooks.detach()
    assert strange not in hooks


def test_an_optimizer_that_is_gone_is_not_kept_alive() -> None:
    optimizer, hooks, _steps = hooked()
    del optimizer, _steps
    gc.collect()
    hooks.attach(torch.optim.SGD([nn.Parameter(torch.ones(1))]), print)
    assert len(hooks._hooks) == 1
