"""Around a step that fails, or once the bracket lets go, nothing of it is left."""

from __future__ import annotations

import pytest
import torch

from lightning_gradguard.actions.step import Orders
from tests.bracketed import OPTIMIZERS, SKIP, Training, assert_same


@pytest.mark.parametrize("make", [OPTIMIZERS["sgd"], OPTIMIZERS["nested"], OPTIMIZERS["lbfgs"]])
def test_after_an_error_in_the_closure_the_next_step_is_guarded(make) -> None:
    training = Training(make, lambda s: SKIP if s == 3 else Orders(lr_factors=[0.5])).run(3)

    def breaks():
        training.closure()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        training.optimizer.step(breaks)
    assert training.optimizer.param_groups[0]["lr"] == 0.1
    before = training.left()[0]
    assert_same(training.run(1).left()[0], before)
    assert training.left_out == [False] * 3 + [True]


def test_an_error_in_the_step_itself_is_undone_by_a_reset() -> None:
    class Breaks(torch.optim.SGD):
        def step(self, closure=None):
            raise RuntimeError

    training = Training(
        lambda p: Breaks(p, lr=0.1), lambda _: Orders(SKIP.skip, [0.5]), with_closure=False
    )
    training.closure()
    with pytest.raises(RuntimeError):
        training.optimizer.step()
    assert not any(p.grad.any() for p in training.model.parameters())
    training.bracket.reset()
    assert all(p.grad.any() for p in training.model.parameters())
    assert training.optimizer.param_groups[0]["lr"] == 0.1


def test_what_is_switched_off_acts_no_more_but_lets_every_step_happen() -> None:
    training = Training(OPTIMIZERS["sgd"], lambda _: SKIP).run(2)
    training.bracket.switch_off()
    before = training.left()[0]
    assert not torch.equal(training.run(1).left()[0][0], before[0])
    assert training.left_out == [True, True]


def test_what_is_switched_off_in_the_middle_of_a_step_lets_it_happen() -> None:
    training = Training(OPTIMIZERS["sgd"], lambda _: SKIP)
    before = training.left()[0]

    def closure():
        training.bracket.switch_off()
        return training.closure()

    training.optimizer.step(closure)
    assert not torch.equal(training.left()[0][0], before[0])
    assert training.left_out == []


def test_a_gradient_that_somebody_put_there_meanwhile_stays() -> None:
    class Leaves(torch.optim.SGD):
        def step(self, closure=None):
            closure()
            for p in self.param_groups[0]["params"]:
                p.grad = torch.full_like(p, 7.0)

    training = Training(lambda p: Leaves(p, lr=0.1), lambda _: SKIP).run(1)
    assert all((p.grad == 7.0).all() for p in training.model.parameters())


def test_what_is_detached_leaves_no_hook() -> None:
    training = Training(OPTIMIZERS["adam, fused"], lambda _: SKIP).run(1)
    training.bracket.detach()
    assert not training.optimizer._optimizer_step_pre_hooks
    assert not training.optimizer._optimizer_step_post_hooks
    before = training.left()[0]
    assert not torch.equal(training.run(1).left()[0][0], before[0])
