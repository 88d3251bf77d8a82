"""The course of a loss, in levels."""

from __future__ import annotations

import math

import pytest

from lightning_gradguard.detectors.progress import LossProgress
from tests.strategies import through_json


def after(losses, *, window_steps=2, block_steps=2) -> LossProgress:
    progress = LossProgress(window_steps=window_steps, block_steps=block_steps)
    for loss in losses:
        progress.update(loss)
    return progress


def levels(*numbers) -> LossProgress:
    """Return the progress of a loss with one level per number."""
    return after([number for number in numbers for _ in range(2)])


def test_levels_are_medians_so_that_one_odd_batch_says_nothing() -> None:
    progress = after([3.0, 1e9, 3.2, 1.0, 1.2, -1e9], window_steps=3)
    assert (progress.start, progress.best, progress.recent) == (3.2, 1.0, 1.0)
    assert progress.start_high == 1e9


def test_before_the_first_window_is_complete_nothing_is_known() -> None:
    progress = after([1.0])
    unknown = (progress.start, progress.start_high, progress.best, progress.recent)
    assert all(math.isnan(number) for number in (*unknown, progress.noise, progress.spread))
    assert progress.steps == 1
    assert not progress.stalls(1)
    assert not progress.is_worse()
    assert not progress.never_moved(steps=1)


def test_missing_and_broken_losses_are_left_out() -> None:
    progress = after([4.0, None, math.nan, math.inf, -math.inf, 4.0])
    assert (progress.start, progress.steps) == (4.0, 2)


def test_best_may_lie_in_the_middle() -> None:
    progress = levels(5.0, 1.0, 3.0)
    assert (progress.start, progress.best, progress.recent) == (5.0, 1.0, 3.0)


def test_noise_is_the_typical_distance_from_the_level() -> None:
    assert after([0.0, 2.0, 4.0, 10.0, 10.0, 13.0], block_steps=3).noise == pytest.approx(1.0)


def test_flat_or_rising_loss_stalls_and_falling_loss_does_not() -> None:
    assert levels(*[2.0] * 6).stalls(3)
    assert levels(1.0, 1.0, 1.0, 3.0, 3.0, 3.0).stalls(3)
    assert not levels(2.0, 2.0, 2.0, 1.0, 1.0, 1.0).stalls(3)


def test_improvement_within_the_tolerance_does_not_count() -> None:
    slow = levels(100.0, 100.0, 97.0, 97.0)
    assert slow.stalls(2, tolerance=0.05)
    assert not slow.stalls(2, tolerance=0.01)


def test_tolerance_works_for_negative_losses_too() -> None:
    assert levels(-100.0, -100.0, -101.0, -101.0).stalls(2)
    assert not levels(-100.0, -100.0, -120.0, -120.0).stalls(2)


def test_too_few_levels_never_stall() -> None:
    assert not levels(1.0, 1.0).stalls(2)


def test_loss_that_is_no_better_than_its_start_never_moved() -> None:
    assert levels(2.0, 2.0).never_moved(steps=4)
    assert levels(2.0, 5.0, 1.95).never_moved(steps=4)
    assert not levels(2.0, 1.95).never_moved(steps=4, tolerance=0.01)
    assert not levels(2.0, 1.0, 2.0).never_moved(steps=4)
    assert not levels(2.0, 2.0).never_moved(steps=5)


def test_loss_below_zero_moves_by_its_size() -> None:
    assert levels(-2.0, -2.05).never_moved(steps=4)
    assert not levels(-2.0, -4.0).never_moved(steps=4)


def test_loss_above_its_best_by_more_than_that_is_worse() -> None:
    assert levels(3.0, 1.0, 2.0).is_worse(excess=0.5)
    assert not levels(3.0, 1.0, 2.0).is_worse(excess=1.5)
    assert not levels(3.0, 2.0, 1.0).is_worse(excess=0.0)


def test_loss_within_its_noise_is_not_worse() -> None:
    noisy = after([1.0, 1.0, 1.0, 1.0, 2.0, 3.0], window_steps=3)
    assert noisy.spread == 1.0
    assert not noisy.is_worse(excess=0.1)
    assert after([1.0] * 3 + [2.0] * 3, window_steps=3).is_worse(excess=0.1)


def test_memory_is_bounded_and_keeps_start_and_latest_level() -> None:
    progress = after(range(3000, 0, -1), window_steps=1, block_steps=1)
    saved = progress.state_dict()
    assert len(saved["levels"]) <= 400
    assert len(saved["levels"]) == len(saved["spreads"])
    assert (saved["levels"][0], saved["levels"][-1]) == (3000, 1)
    assert (progress.start, progress.recent, progress.steps) == (3000, 1, 3000)


@pytest.mark.parametrize("stop", [0, 1, 5, 8, 19])
def test_stopping_anywhere_changes_nothing(stop) -> None:
    losses = [20.0 - step + (step % 3) for step in range(20)]
    half = after(losses[:stop], window_steps=3, block_steps=4)
    half = through_json(half, LossProgress(window_steps=3, block_steps=4))
    for loss in losses[stop:]:
        half.update(loss)
    whole = after(losses, window_steps=3, block_steps=4)
    assert half.state_dict() == whole.state_dict()
    assert (half.start, half.best, half.noise) == (whole.start, whole.best, whole.noise)
