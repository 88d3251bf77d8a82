"""The governor keeps a budget, by made-up clocks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_gradguard.governor import _INTERVALS, Governor


def drive(governor, batches, *, look, glance=0.0, rest=0.1, first=0):
    """Train, and return the interval of each batch and the seconds that were ours."""
    intervals, spent = [], []
    for step in range(first, first + batches):
        looked = step % governor.interval == 0
        seconds = look(step) if looked else glance
        intervals.append(governor.interval)
        spent.append(seconds)
        governor.note(spent=seconds, step=rest + seconds, looked=looked)
        if governor.count_batch():
            governor.interval = governor.wanted
    return intervals, spent


@given(
    look=st.floats(1e-5, 1.0),
    glance_share=st.floats(0.0, 0.5),
    rest=st.floats(1e-3, 1.0),
    budget=st.floats(0.005, 0.5),
)
def test_the_budget_is_kept_by_the_shortest_interval_that_does(
    look, glance_share, rest, budget
) -> None:
    glance = glance_share * look
    allowed, extra = budget * rest, look - glance
    assume(all(abs(glance + extra / n - allowed) > 1e-9 for n in _INTERVALS))
    assume(all(abs(extra / n - allowed / 2) > 1e-9 for n in _INTERVALS))
    governor = Governor(budget)
    drive(governor, 200, look=lambda _: look, glance=glance, rest=rest)
    # What glances leave goes to looks, and one half of the budget in any case.
    for_looks = max(allowed - glance, allowed / 2)
    kept_by = [n for n in _INTERVALS if extra / n <= for_looks]
    expected = 1 if look <= allowed else min(kept_by, default=_INTERVALS[-1])
    assert governor.interval == expected


def test_over_a_long_run_the_budget_is_kept() -> None:
    governor = Governor(0.02)
    drive(governor, 100, look=lambda _: 0.013, glance=0.0002)
    _, spent = drive(governor, 1000, look=lambda _: 0.013, glance=0.0002, first=100)
    assert sum(spent) / (1000 * 0.1) <= 0.02


def test_a_cheap_look_is_taken_at_every_step() -> None:
    governor = Governor(0.02)
    intervals, _ = drive(governor, 300, look=lambda _: 0.0005)
    assert set(intervals) == {1}


def test_it_does_not_flap_at_the_border() -> None:
    governor = Governor(0.02)
    # For long stretches a look takes now a bit more, now a bit less than one step in five may.
    intervals, _ = drive(governor, 20_000, look=lambda n: 0.0105 if n // 2000 % 2 else 0.0095)
    assert sum(a != b for a, b in pairwise(intervals)) == 2  # to 5, then to 10 for good
    assert intervals[-1] == 10


def test_where_glances_leave_nothing_looks_still_get_half_of_the_budget() -> None:
    governor = Governor(0.02)
    drive(governor, 200, look=lambda _: 0.025, glance=0.005)
    assert governor.interval == 20  # 0.02 seconds more, of which each step may take 0.001


def test_what_no_interval_can_pay_for_takes_the_longest() -> None:
    governor = Governor(0.02)
    drive(governor, 200, look=lambda _: 100.0)
    assert governor.interval == _INTERVALS[-1]


def test_it_comes_back_when_training_slows_down() -> None:
    governor = Governor(0.02)
    drive(governor, 200, look=lambda _: 0.01)
    assert governor.interval == 5
    drive(governor, 400, look=lambda _: 0.01, rest=1.0, first=200)
    assert governor.interval == 1


def test_what_is_slow_only_at_first_counts_for_nothing() -> None:
    governor = Governor(0.02)
    intervals, _ = drive(governor, 100, look=lambda step: 5.0 if step < 10 else 0.001)
    assert set(intervals) == {1}


def test_all_ranks_decide_at_the_same_batches_whatever_they_saw() -> None:
    busy, idle = Governor(0.02), Governor(0.02)
    decisions = []
    for step in range(200):
        busy.note(spent=0.5, step=1.0, looked=True)  # the other was switched off by a fault
        decisions.append((busy.count_batch(), idle.count_batch()))
        assert decisions[step][0] == decisions[step][1]
    assert sum(first for first, _ in decisions) == 8


def test_one_that_saw_nothing_wants_what_there_is() -> None:
    governor = Governor(0.02)
    assert governor.wanted == 1
    governor.interval = 20
    assert governor.wanted == 20


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan")])
def test_a_budget_must_be_positive(budget) -> None:
    with pytest.raises(ValueError, match="`max_overhead` must be positive, got"):
        Governor(budget)


def governed(batches) -> Governor:
    governor = Governor(0.02)
    for spent, step in batches:
        governor.count_batch()
        governor.note(spent=spent, step=step, looked=True)
    return governor


def test_one_slow_moment_hardly_counts() -> None:
    usual = [(0.0001, 0.0101)] * 40
    assert governed([*usual, (0.5, 0.51)]).wanted == governed(usual).wanted == 1


def test_validation_between_steps_is_no_time_to_spend() -> None:
    costly = [(0.001, 0.011)] * 40
    assert governed([*costly[:20], (0.001, 30.0), *costly[20:]]).wanted == governed(costly).wanted
    assert governed(costly).wanted > 1
