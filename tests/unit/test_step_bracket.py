"""Stand around the step of plain torch optimizers: what is left out never happened."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_gradguard import devices
from lightning_gradguard.actions.step import Bracket, Orders

SKIP = Orders(torch.ones((), dtype=torch.bool))
GO = Orders(~SKIP.skip)

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "adam, fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "adam, tensor rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1), foreach=False),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    "nested": lambda p: Nested(p, lr=0.1, momentum=0.9),
    "always decays": lambda p: AlwaysDecays(p, {"lr": 0.1}),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


class Nested(torch.optim.SGD):
    """Calls its parent's step in its own, so that hooks run twice."""

    def step(self, closure=None):
        loss = None if closure is None else closure()
        super().step()
        return loss


class AlwaysDecays(torch.optim.Optimizer):
    """As some third-party optimizers: decays weights and counts even without gradients."""

    def step(self, closure=None):
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["count"] = self.state[p].get("count", 0) + 1
                    p.mul_(1.0 - group["lr"])
                    if p.grad is not None:
                        p.add_(p.grad, alpha=-group["lr"])
        return loss


class Training:
    """A tiny training with a bracket around its optimizer."""

    def __init__(self, make, orders=lambda _step: GO, *, early=(), with_closure=True):
        torch.manual_seed(1)
        self.model = nn.Linear(3, 2)
        self.optimizer = make(self.model.parameters())
        self.with_closure = with_closure or isinstance(self.optimizer, torch.optim.LBFGS)
        self.steps, self.left_out, self.rates = 0, [], []
        self.bracket = Bracket(self.optimizer, lambda: orders(self.steps), self.after)
        self.bracket.attach(lambda: early, may_skip=True)
        self.data = torch.randn(12, 8, 3)

    def after(self, skipped):
        self.left_out.append(skipped if isinstance(skipped, bool) else bool(skipped))

    def closure(self):
        self.optimizer.zero_grad()
        loss = self.model(self.data[self.steps]).square().mean()
        loss.backward()
        self.rates.append([float(group["lr"]) for group in self.optimizer.param_groups])
        return loss

    def run(self, steps):
        for _ in range(steps):
            if self.with_closure:
                self.optimizer.step(self.closure)
            else:
                self.closure()
                self.optimizer.step()
            self.steps += 1
        return self

    def left(self):
        state = copy.deepcopy(self.optimizer.state_dict())
        return [p.detach().clone() for p in self.model.parameters()], state


def assert_same(left, right):
    torch.testing.assert_close(left, right, rtol=0.0, atol=0.0)


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
    assert all(p.grad is None for p in training.model.parameters())
    training.bracket.reset()
    assert all(p.grad is not None for p in training.model.parameters())
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
