"""When a state is kept, and how to go back to one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.actions.states import Generations
from lightning_gradguard.remedies import GoBack, Rollback
from lightning_gradguard.return_point import ReturnPoint


class Journey:
    """A weight that is its own step, and something beside the model that is kept with it."""

    def __init__(self, *, every=10, most=9):
        self.model, self.seen = nn.Linear(1, 1, bias=False), []
        states = Generations(self.model, [], most=most)
        self.point = ReturnPoint(
            states, every_n_steps=every, extra=lambda: self.seen, restore_extra=self.take
        )

    def take(self, seen):
        self.seen = seen

    def walk(self, *steps):
        for step in steps:
            nn.init.constant_(self.model.weight, step)
            self.seen.append(step)
            self.point.keep({0: step})
        return self

    def back(self, before_step, now):
        done = self.point.go_back_(GoBack(before_step, "why"), 0, {0: now})
        return self.model.weight.item() if done else None


@pytest.mark.parametrize(
    ("before_step", "expected"), [(0, 0), (9, 0), (10, 10), (19, 10), (20, 20), (99, 30)]
)
def test_a_state_is_kept_every_so_many_steps_from_the_first_on(before_step, expected) -> None:
    assert Journey().walk(*range(36)).back(before_step, 36) == expected


def test_steps_that_are_missed_do_not_shift_it_for_ever() -> None:
    journey = Journey().walk(0, 7, 13, 19, 24, 30, 36)
    assert journey.back(99, 36) == 36
    assert [Journey().walk(0, 7, 13, 19, 24, 30).back(n, 30) for n in (12, 23, 24, 99)] == [
        0,
        13,
        24,
        24,
    ]


def test_what_was_kept_with_a_state_comes_back_as_it_was() -> None:
    journey = Journey().walk(*range(25))
    journey.back(12, 25)
    assert journey.seen == list(range(11))


def test_where_no_state_is_old_enough_nothing_changes() -> None:
    journey = Journey(most=2).walk(*range(36))
    assert journey.back(19, 36) is None
    assert journey.model.weight.item() == 35
    assert journey.seen == list(range(36))


def test_after_going_back_the_next_state_is_kept_a_full_interval_later() -> None:
    journey = Journey().walk(*range(26))
    assert journey.back(15, 26) == 10
    journey.walk(*range(26, 36))
    assert journey.back(35, 36) == 10
    journey.walk(*range(36, 48))
    assert journey.back(99, 48) == 46


def test_the_farthest_optimizer_sets_the_pace() -> None:
    model = nn.Linear(1, 1)
    states = Generations(model, [])
    point = ReturnPoint(states, every_n_steps=10)
    for step in range(21):
        point.keep({0: step, 1: step // 5})
    assert len(states) == 3
    assert states.find(2, optimizer_index=1)
    assert point.go_back_(GoBack(2, "why"), 1, {0: 21, 1: 4})
    assert len(states) == 2


def test_without_optimizers_the_start_is_kept_once() -> None:
    states = Generations(nn.Linear(1, 1), [])
    point = ReturnPoint(states, every_n_steps=1)
    for _ in range(3):
        point.keep({})
    assert len(states) == 1


def test_of_several_remedies_the_most_demanding_are_served() -> None:
    model, seen = nn.Linear(1, 1, bias=False), []
    rollbacks = [Rollback(every_n_steps=5, generations=2), Rollback(every_n_steps=10)]
    point = ReturnPoint.of(
        rollbacks,
        model,
        [],
        tuple,
        looks_every=lambda: 1,
        max_bytes=None,
        extra=lambda: 7,
        restore_extra=seen.append,
    )
    for step in range(31):
        nn.init.constant_(model.weight, step)
        point.keep({0: step})
    assert not point.go_back_(GoBack(14, "why"), 0, {0: 31})  # kept are 15, 20, 25 and 30
    assert point.go_back_(GoBack(19, "why"), 0, {0: 31})
    assert (model.weight.item(), seen) == (15, [7])


def test_states_lie_farther_apart_where_the_monitor_looks_rarely() -> None:
    journey, every = Journey(every=10), 2
    journey.point._looks_every = lambda: every
    journey.walk(*range(21))
    every = 25
    journey.walk(*range(21, 300))
    # The last of the old interval, and from there on five looks apart.
    assert [journey.back(n, 300) for n in (299, 269, 144, 19)] == [270, 145, 20, 10]


def test_where_other_parameters_are_trained_a_state_is_kept_at_once() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    point = ReturnPoint(Generations(model, [optimizer]), every_n_steps=100)
    point.keep({0: 0})
    optimizer.add_param_group({"params": [model.bias]})
    point.keep({0: 7})
    assert not point.go_back_(GoBack(6, "why"), 0, {0: 8})
    assert point.go_back_(GoBack(7, "why"), 0, {0: 8})
