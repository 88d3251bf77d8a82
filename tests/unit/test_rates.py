"""Other learning rates for one step: the user's own are always what is left."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.actions.rates import Rates
from lightning_gradguard.actions.step import Bracket, Orders
from tests.bracketed import OPTIMIZERS, SKIP, Training, assert_same

HALF = Orders(lr_factors=[0.5])


def sgd(*groups):
    return torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], **g} for g in groups])


@pytest.mark.parametrize("kind", ["sgd", "adam, tensor rate", "nested", "lbfgs"])
def test_a_rate_that_the_user_sets_in_the_closure_stays(kind) -> None:
    training = Training(OPTIMIZERS[kind], lambda _: HALF, early=[0.5])
    own_closure, seen = training.closure, []

    def closure():
        for group in training.optimizer.param_groups:
            group["lr"] = 0.3 / (1 + training.steps)
        return own_closure()

    training.closure = closure
    for _ in range(3):
        training.run(1)
        seen.append(training.optimizer.param_groups[0]["lr"])
    assert seen == [0.3, 0.15, pytest.approx(0.1)]


def test_a_tensor_that_the_user_writes_to_stays_as_written() -> None:
    training = Training(OPTIMIZERS["lbfgs"], early=[0.5])
    rate = torch.tensor(0.1)
    training.optimizer.param_groups[0]["lr"] = rate
    own_closure = training.closure

    def closure():
        rate.fill_(0.3)
        return own_closure()

    training.closure = closure
    training.run(1)
    assert float(rate) == pytest.approx(0.3)


def test_a_second_look_scales_the_rate_that_is_the_users_now() -> None:
    optimizer = sgd({"lr": 0.8}, {"lr": 0.4})
    first, second = optimizer.param_groups
    rates = Rates(optimizer)
    rates.scale_([0.5, 0.5])
    first["lr"] = 0.2
    rates.scale_([0.5, 1.0])
    assert [first["lr"], second["lr"]] == [0.1, 0.4]
    rates.restore_()
    assert [first["lr"], second["lr"]] == [0.2, 0.4]


def test_groups_without_a_rate_are_left_alone() -> None:
    optimizer = sgd({"lr": 0.8}, {"lr": 0.4}, {"lr": 0.2})
    optimizer.param_groups[0]["lr"] = None
    del optimizer.param_groups[1]["lr"]
    rates = Rates(optimizer)
    rates.scale_([0.5] * 3)
    assert [group.get("lr") for group in optimizer.param_groups] == [None, None, 0.1]
    rates.restore_()
    assert [group.get("lr") for group in optimizer.param_groups] == [None, None, 0.2]


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("with_closure", [True, False], ids=["closure", "no closure"])
def test_brackets_around_the_same_step_put_back_what_was_there_before_the_first(
    make, with_closure
) -> None:
    two = Training(make, lambda _: HALF, early=[0.5], with_closure=with_closure)
    inner = Bracket(two.optimizer, lambda: Orders(lr_factors=[0.25]), lambda _: None)
    inner.attach(lambda: [0.25], may_skip=True)
    one = Training(
        make, lambda _: Orders(lr_factors=[0.125]), early=[0.125], with_closure=with_closure
    )
    assert_same(two.run(4).left(), one.run(4).left())
    assert [float(group["lr"]) for group in two.optimizer.param_groups] == [pytest.approx(0.1)]


def test_three_brackets_that_all_leave_steps_out_put_back_the_gradients_and_the_flag() -> None:
    three = Training(OPTIMIZERS["adam, fused"], lambda s: SKIP if s % 2 else HALF)
    for _ in range(2):
        other = Bracket(three.optimizer, lambda: SKIP if three.steps % 2 else HALF, lambda _: None)
        other.attach(tuple, may_skip=True)
    three.run(6)
    assert three.left_out == [False, True] * 3
    assert three.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    assert all(p.grad is not None for p in three.model.parameters())
    assert not hasattr(three.optimizer, "found_inf")
