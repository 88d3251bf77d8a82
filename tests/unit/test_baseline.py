"""What is normal for a number, learned from the run's own quiet part."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.baseline import Baseline
from tests.oracles import weighted_moments

norms = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60)


def after(numbers, baseline=None) -> Baseline:
    baseline = baseline or Baseline()
    for number in numbers:
        baseline = baseline.after(number)
    return baseline


@given(norms)
def test_without_a_limit_it_has_the_weighted_moments_of_the_logarithms(numbers) -> None:
    learned = after(numbers, Baseline(decay=0.9, floor=0.0, width=math.inf))
    mean, variance = weighted_moments([math.log10(x) for x in numbers], 0.9)
    assert learned.location == pytest.approx(10.0**mean)
    assert learned.scale == pytest.approx(math.sqrt(variance), abs=1e-6)


@given(norms, st.sampled_from([2.0**-20, 2.0**40]))
def test_rescaling_a_stream_moves_the_location_and_nothing_else(numbers, scale) -> None:
    plain, scaled = after(numbers), after([scale * x for x in numbers])
    assert scaled.location == pytest.approx(scale * plain.location)
    assert scaled.scale == pytest.approx(plain.scale)
    assert scaled.z_score(scale * 3.0) == pytest.approx(plain.z_score(3.0))


@given(norms, st.floats(1e-200, 1e200))
def test_one_outlier_moves_little(numbers, outlier) -> None:
    learned = after(numbers * 6)
    moved = learned.after(outlier)
    reach = learned.width * learned.scale
    share = max(1.0 - learned.decay, 1.0 / (learned.count + 1))
    shift = abs(math.log10(moved.location / learned.location))
    assert shift <= share * reach + 1e-9


def test_what_lasts_is_learned_in_time() -> None:
    learned = after([1.0] * 100 + [1000.0] * 1000)
    assert learned.location == pytest.approx(1000.0, rel=0.01)


def test_before_anything_is_known_nothing_is_unusual() -> None:
    assert Baseline().z_score(1e100) == 0.0
    assert Baseline().count == 0


def test_a_stream_that_hardly_varies_does_not_cry_at_a_ripple() -> None:
    learned = after([1.0] * 100, Baseline(floor=0.05))
    assert learned.scale == 0.05
    assert learned.z_score(1.1) < 1.0 < learned.z_score(1.3)
    assert learned.z_score(0.1) == pytest.approx(-20.0)


@pytest.mark.parametrize("number", [0.0, -1.0, math.inf, -math.inf, math.nan])
def test_what_is_no_size_teaches_nothing_and_is_not_judged(number) -> None:
    learned = after([1.0, 2.0, 3.0])
    assert learned.after(number) is learned
    assert learned.z_score(number) == 0.0


@given(norms, st.integers(0, 60))
def test_stopping_anywhere_changes_nothing(numbers, stop) -> None:
    first = after(numbers[:stop], Baseline(decay=0.9, floor=0.1, width=2.0))
    saved = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    second = after(numbers[stop:], Baseline(decay=0.9, floor=0.1, width=2.0).loaded(saved))
    assert second == after(numbers, Baseline(decay=0.9, floor=0.1, width=2.0))
