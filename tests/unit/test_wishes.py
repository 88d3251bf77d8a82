"""What waits for the end of a batch: going back, keeping a state, ending."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.actions.states import Generations
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.audit import Audit
from lightning_gradguard.budget import Budget
from lightning_gradguard.errors import TrainingStoppedError
from lightning_gradguard.reckoning import Reckoning
from lightning_gradguard.remedies import GoBack, Stop
from lightning_gradguard.remedies.council import Verdict
from lightning_gradguard.return_point import ReturnPoint
from lightning_gradguard.ward import Decided
from lightning_gradguard.wishes import Wishes


class Journey:
    """A weight that is its own step, and wishes about it."""

    def __init__(self, *, dry_run=False, keeps=True):
        self.model, self.audit = nn.Linear(1, 1, bias=False), Audit(dry_run=dry_run)
        reckoning = Reckoning(self.audit, Budget(), lambda _: None)
        self.wishes = Wishes(reckoning, dry_run=dry_run)
        if keeps:
            states = Generations(self.model, [], most=9)
            self.wishes.return_point = ReturnPoint(states, every_n_steps=10)
        self.wishes.start({0: 0})

    def step(self, number, *decisions, may_keep=True):
        """Make a step of which something was decided; return the weight after its batch."""
        nn.init.constant_(self.model.weight, number)
        context = StepContext(step=number, optimizer_index=0)
        verdict = Verdict.of(decisions)
        self.wishes.note(Decided(verdict, context, number, torch.ones(()), None, [1.0], 1.0, True))
        self.wishes.carry_out_({0: number}, may_keep=may_keep)
        return self.model.weight.item()

    @property
    def records(self):
        return [(action.what, action.step, action.why) for action in self.audit.actions]


def test_a_wish_to_go_back_is_carried_out_when_the_batch_is_over() -> None:
    journey = Journey()
    assert [journey.step(number) for number in (10, 20, 30)] == [10, 20, 30]
    assert journey.step(31, GoBack(25, "lost")) == 20
    assert journey.step(32) == 32
    assert journey.records == [("rollback", 31, "lost")]


def test_of_several_wishes_before_the_end_of_a_batch_the_first_holds() -> None:
    journey = Journey()
    for number in (10, 20):
        journey.step(number)
    context = StepContext(step=25)
    wish = Verdict.of([GoBack(12, "first")])
    journey.wishes.note(Decided(wish, context, 25, torch.ones(()), None, [1.0], 1.0, True))
    assert journey.step(26, GoBack(22, "second")) == 10
    assert journey.records == [("rollback", 25, "first")]


@pytest.mark.parametrize("keeps", [True, False])
def test_where_there_is_nothing_to_go_back_to_that_is_said(keeps) -> None:
    journey = Journey(keeps=keeps)
    journey.step(10)
    if keeps:
        nowhere = ReturnPoint(Generations(journey.model, []), every_n_steps=10)
        journey.wishes.return_point = nowhere
    assert journey.step(15, GoBack(3, "lost")) == 15
    assert journey.records == [("give_up", 15, "no state from before step 3")]


def test_no_state_is_kept_that_is_not_worth_it() -> None:
    journey = Journey()
    journey.step(10)
    journey.step(20, may_keep=False)
    assert journey.step(25, GoBack(22, "lost")) == 10


def test_the_first_reason_to_stop_holds_and_is_recorded_once() -> None:
    journey = Journey()
    assert journey.wishes.stop_reason is None
    journey.step(3, Stop("enough"))
    journey.step(4, Stop("more than enough", as_error=True))
    assert journey.wishes.stop_reason == "enough"
    assert journey.records == [("stop", 3, "enough")]


def test_an_error_is_raised_after_each_batch_from_then_on() -> None:
    journey = Journey()
    for number in (3, 4):
        with pytest.raises(TrainingStoppedError, match="enough"):
            journey.step(number, Stop("enough", as_error=True))
    assert journey.records == [("raise", 3, "enough")]


def test_a_dry_run_records_the_same_and_does_nothing() -> None:
    journey = Journey(dry_run=True, keeps=False)
    wishes = [GoBack(1, "lost"), Stop("enough", as_error=True)]
    assert journey.step(5, *wishes) == 5
    assert journey.wishes.stop_reason is None
    assert journey.records == [("raise", 5, "enough"), ("rollback", 5, "lost")]
    assert all(action.dry_run for action in journey.audit.actions)
