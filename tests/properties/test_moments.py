"""Laws of moments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.moments import Moments, updated
from tests import oracles

streams = st.lists(st.floats(-300, 300), min_size=1, max_size=80)
decays = st.floats(0.0, 0.999)


def over(numbers, decay) -> Moments:
    moments = Moments()
    for number in numbers:
        moments = updated(moments, number, decay=decay)
    return moments


@given(streams, decays)
def test_moments_equal_two_passes_over_weighted_numbers(numbers, decay) -> None:
    mean, variance = oracles.weighted_moments(numbers, decay)
    moments = over(numbers, decay)
    assert moments.mean == pytest.approx(mean, rel=1e-9, abs=1e-9)
    assert moments.variance == pytest.approx(variance, rel=1e-9, abs=1e-9)


@given(streams, decays, st.floats(-100, 100))
def test_a_shift_moves_the_mean_and_not_the_variance(numbers, decay, shift) -> None:
    plain, shifted = over(numbers, decay), over([x + shift for x in numbers], decay)
    assert shifted.mean == pytest.approx(plain.mean + shift, abs=1e-9)
    assert shifted.variance == pytest.approx(plain.variance, rel=1e-6, abs=1e-6)


@given(streams, decays)
def test_variance_is_never_negative(numbers, decay) -> None:
    assert over(numbers, decay).variance >= 0.0


@given(st.floats(-1e6, 1e6), st.integers(1, 60), decays)
def test_constant_stream_has_exactly_no_variance(number, count, decay) -> None:
    moments = over([number] * count, decay)
    assert (moments.mean, moments.variance) == (number, 0.0)
