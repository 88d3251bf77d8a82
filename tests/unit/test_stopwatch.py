"""Time, by a made-up clock."""

from __future__ import annotations

import contextlib
import math

import pytest

from lightning_gradguard import stopwatch
from lightning_gradguard.stopwatch import Stopwatch


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch.time, "perf_counter", clock)
    return clock


def step(watch: Stopwatch, clock: Clock, *, ours: float, rest: float):
    with watch.running():
        clock.now += ours
    clock.now += rest
    return watch.end_step()


def test_a_step_takes_from_the_end_of_the_one_before_to_its_own(clock) -> None:
    watch = Stopwatch()
    assert step(watch, clock, ours=0.5, rest=9.0) is None
    assert step(watch, clock, ours=0.25, rest=1.0) == pytest.approx((0.25, 1.25))
    assert watch.means_ms() == pytest.approx((250.0, 1250.0))


def test_several_parts_of_ours_add_up_and_an_error_is_counted(clock) -> None:
    watch = Stopwatch()
    watch.end_step()
    with watch.running():
        clock.now += 1.0
    with contextlib.suppress(KeyError), watch.running():
        clock.now += 2.0
        raise KeyError
    assert watch.end_step() == pytest.approx((3.0, 3.0))


@pytest.mark.usefixtures("clock")
def test_nothing_is_known_before_two_steps() -> None:
    watch = Stopwatch()
    watch.end_step()
    assert all(math.isnan(number) for number in (*watch.means_ms(), watch.overhead_ms))


def test_the_median_goes_on_however_long_the_run_is(clock) -> None:
    watch = Stopwatch()
    for _ in range(1500):
        step(watch, clock, ours=0.001, rest=0.1)
    assert watch.overhead_ms == pytest.approx(1.0)
    for _ in range(1500):
        step(watch, clock, ours=0.002, rest=0.1)
    assert watch.overhead_ms == pytest.approx(2.0)
