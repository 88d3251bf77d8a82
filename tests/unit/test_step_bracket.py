"""Stand around the step of plain torch optimizers: left out, or at another rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard import devices
from lightning_gradguard.actions.step import Bracket, Orders
from tests.bracketed import GO, OPTIMIZERS, SKIP, Training, assert_same, every_optimizer


@every_optimizer
@pytest.mark.parametrize("with_closure", [True, False], ids=["closure", "no closure"])
@pytest.mark.usefixtures("backend")
def test_a_step_that_is_left_out_changes_neither_weights_nor_state(make, with_closure) -> None:
    training = Training(make, lambda s: SKIP if s == 4 else GO, with_closure=with_closure).run(4)
    before = training.left()
    training.run(1)
    assert_same(training.left(), before)
    assert all(p.grad is not None for p in training.model.parameters())
    training.run(1)
    assert training.left_out == [False] * 4 + [True, False]
    assert not torch.equal(training.left()[0][0], before[0][0])


@every_optimizer
@pytest.mark.usefixtures("backend")
def test_a_step_that_is_left_out_at_once_leaves_no_state(make) -> None:
    training = Training(make, lambda _: SKIP)
    before = training.left()
    assert_same(training.run(1).left(), before)


@every_optimizer
@pytest.mark.usefixtures("backend")
def test_a_flag_that_is_false_is_as_if_nobody_had_asked(make) -> None:
    assert_same(Training(make).run(6).left(), Training(make, lambda _: Orders()).run(6).left())


def halved(make):
    def slower(parameters):
        optimizer = make(parameters)
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * group["lr"]
        return optimizer

    return slower


@every_optimizer
def test_a_rate_that_is_cut_is_that_of_a_slower_training_and_nobody_else_sees_it(make) -> None:
    cut = Training(make, lambda _: Orders(lr_factors=[0.5]), early=[0.5])
    slow = Training(halved(make)).run(6)
    is_tensor = isinstance(cut.optimizer.param_groups[0]["lr"], torch.Tensor)
    rate = cut.optimizer.param_groups[0]["lr"]
    for left, right in zip(cut.run(6).left()[0], slow.left()[0], strict=True):
        torch.testing.assert_close(left, right)
    assert float(cut.optimizer.param_groups[0]["lr"]) == pytest.approx(0.1)
    if is_tensor:  # a compiled step has it
        assert cut.optimizer.param_groups[0]["lr"] is rate


def test_only_a_line_search_is_told_its_rate_before_it_evaluates() -> None:
    lbfgs = Training(OPTIMIZERS["lbfgs"], early=[0.25]).run(2)
    assert lbfgs.rates[0] == lbfgs.rates[-1] == [pytest.approx(0.025)]
    assert Training(OPTIMIZERS["sgd"], early=[0.25]).run(2).rates == [[0.1], [0.1]]


def test_each_group_has_its_own_factor() -> None:
    def two(parameters):
        weight, bias = parameters
        return torch.optim.SGD([{"params": [weight], "lr": 1.0}, {"params": [bias], "lr": 0.5}])

    training = Training(two, lambda _: Orders(lr_factors=[1.0, 0.0]))
    weight, bias = training.left()[0]
    now = training.run(1).left()[0]
    assert torch.equal(now[1], bias)
    assert not torch.equal(now[0], weight)
    assert [group["lr"] for group in training.optimizer.param_groups] == [1.0, 0.5]


def test_a_later_look_of_a_line_search_can_leave_the_whole_step_out() -> None:
    looks = iter([GO, GO, SKIP, GO, GO, GO, GO, GO])
    training = Training(OPTIMIZERS["lbfgs"], lambda _: next(looks))
    before = training.left()[0]
    assert_same(training.run(1).left()[0], before)
    assert training.left_out == [True]


def test_a_step_within_a_step_is_one_step() -> None:
    """Orders may be given once: whoever decides learns from each question."""
    orders = iter([SKIP, GO])
    training = Training(OPTIMIZERS["nested"], lambda _: next(orders))
    before = training.left()[0]
    assert_same(training.run(1).left()[0], before)
    assert not torch.equal(training.run(1).left()[0][0], before[0])


def test_a_schedule_goes_on_while_steps_are_left_out() -> None:
    training = Training(OPTIMIZERS["sgd"], lambda _: Orders(SKIP.skip, [0.5]))
    schedule = torch.optim.lr_scheduler.ExponentialLR(training.optimizer, 0.5)
    for _ in range(3):
        training.run(1)
        schedule.step()
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 8)


def test_evaluations_are_counted_within_a_step_only() -> None:
    seen = []
    training = Training(
        OPTIMIZERS["lbfgs"], lambda _: seen.append(training.bracket.evaluations) or GO
    )
    training.run(1)
    assert seen[:3] == [0, 1, 2]
    assert (training.bracket.evaluations, training.bracket.is_in) == (0, False)


@pytest.mark.parametrize("scalers_own", [None, 0.0, 1.0])
def test_the_flag_of_a_gradient_scaler_is_kept_and_counts_too(scalers_own, monkeypatch) -> None:
    monkeypatch.setattr(devices, "is_host", lambda _device: False)
    training = Training(OPTIMIZERS["adam, fused"], with_closure=False).run(2)
    own = None if scalers_own is None else torch.tensor(scalers_own)
    training.optimizer.found_inf = own
    before = training.left()[0]
    training.run(1)
    assert training.optimizer.found_inf is own
    assert torch.equal(training.left()[0][0], before[0]) is (scalers_own == 1.0)


def test_without_leave_to_skip_a_line_search_is_not_copied() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.LBFGS(model.parameters())
    bracket = Bracket(optimizer, Orders, lambda _: None)
    bracket.attach(tuple, may_skip=False)
    optimizer.step(lambda: model(torch.ones(1, 2)).sum() * 0.0)
    assert bracket.skipped is False
