"""Which steps are looked at, glanced at, or let pass."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_gradguard import devices
from lightning_gradguard.governor import Governor
from lightning_gradguard.pace import Pace


class Finite:
    """A probe that only glances."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)

    def is_finite(self, parameters, optimizer_index):
        return self.answers.pop(0)


def governed(interval: int, every_n_steps: int = 1) -> Pace:
    governor = Governor(0.02)
    governor.interval = interval
    return Pace(every_n_steps, governor)


def test_one_step_in_so_many_is_looked_at() -> None:
    assert [step for step in range(10) if Pace(3).is_looked_at(step)] == [0, 3, 6, 9]


def test_a_governor_stretches_the_interval_in_multiples() -> None:
    pace = governed(5, every_n_steps=2)
    assert pace.interval == 6  # the first multiple of 2 that is long enough
    assert [step for step in range(15) if pace.is_looked_at(step)] == [0, 6, 12]


def test_the_look_before_is_remembered_for_each_optimizer() -> None:
    pace = Pace()
    assert [pace.look(step, 0) for step in (0, 4, 5)] == [-1, 0, 4]
    assert [pace.look(step, 1) for step in (2, 9)] == [-1, 2]


def test_looks_of_one_line_search_have_one_look_before_them() -> None:
    pace = Pace()
    assert [pace.look(step, 0) for step in (0, 0, 0, 4, 4, 5)] == [-1, -1, -1, 0, 0, 4]


def test_nothing_is_glanced_at_without_a_governor_or_between_the_users_own_steps() -> None:
    probe = Finite()  # has no answer, and is never asked
    assert not Pace(5).looks_broken(probe, [], 3, 0)
    assert not governed(5, every_n_steps=2).looks_broken(probe, [], 3, 0)


@pytest.mark.parametrize("finite", [True, False])
def test_on_the_host_a_glance_answers_at_once(finite) -> None:
    assert governed(5).looks_broken(Finite(finite), [], 3, 0) is not finite


def test_on_a_device_the_answer_comes_with_the_next_glance(monkeypatch) -> None:
    monkeypatch.setattr(devices, "is_host", lambda _device: False)
    sums = [torch.tensor(number) for number in (1.0, math.nan, 1.0)]
    probe, pace = Finite(*sums), governed(5)
    assert [pace.looks_broken(probe, [], step, 0) for step in (1, 2, 3)] == [False, False, True]


def test_glances_of_two_optimizers_are_kept_apart(monkeypatch) -> None:
    monkeypatch.setattr(devices, "is_host", lambda _device: False)
    probe, pace = Finite(torch.tensor(math.inf), torch.tensor(1.0), torch.tensor(1.0)), governed(5)
    assert not pace.looks_broken(probe, [], 1, 0)
    assert not pace.looks_broken(probe, [], 1, 1)
    assert not pace.looks_broken(probe, [], 2, 1)
    assert pace.looks_broken(probe, [], 2, 0)


def test_the_governor_is_told_of_looks_and_of_glances() -> None:
    governor, told = Governor(0.02), []
    governor.note = lambda **timing: told.append(timing)
    pace = Pace(1, governor)
    pace.end_step(None)  # the first step has no length
    pace.look(0, 0)
    pace.end_step((0.1, 1.0))
    pace.end_step((0.2, 2.0))
    assert told == [
        {"spent": 0.1, "step": 1.0, "looked": True},
        {"spent": 0.2, "step": 2.0, "looked": False},
    ]
