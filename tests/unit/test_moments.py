"""Moments of a stream are those of its numbers, weighted."""

from __future__ import annotations

import statistics

import pytest

from lightning_gradguard.moments import Moments, updated


def over(numbers, decay=0.98) -> Moments:
    moments = Moments()
    for number in numbers:
        moments = updated(moments, number, decay=decay)
    return moments


def test_first_numbers_are_averaged_plainly() -> None:
    numbers = [3.0, -1.0, 4.0, 1.0, 5.0]
    moments = over(numbers)
    assert moments.mean == pytest.approx(statistics.fmean(numbers))
    assert moments.variance == pytest.approx(statistics.pvariance(numbers))
    assert moments.count == 5


def test_long_after_a_jump_only_the_new_level_is_left() -> None:
    moments = over([0.0] * 50 + [7.0] * 2000, decay=0.9)
    assert moments.mean == pytest.approx(7.0)
    assert moments.variance == pytest.approx(0.0, abs=1e-12)


def test_one_number_has_no_variance() -> None:
    assert over([1e100]) == Moments(1, 1e100, 0.0)


def test_without_memory_only_the_last_number_counts() -> None:
    assert over([1.0, 2.0, 9.0], decay=0.0) == Moments(3, 9.0, 0.0)


def test_updating_leaves_the_past_as_it_was() -> None:
    past = Moments(2, 1.0, 0.5)
    updated(past, 5.0, decay=0.5)
    assert past == Moments(2, 1.0, 0.5)
