"""What a histogram says of a number format is what the format does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_gradguard import histogram, schema
from tests import oracles
from tests.strategies import make_frame


def spread(seed: int) -> np.ndarray:
    """Return numbers of all magnitudes, none of them within a rounding of a format's end."""
    rng = np.random.default_rng(seed)
    numbers = rng.uniform(1.01, 1.99, 3000) * 2.0 ** rng.integers(-160, 140, 3000)
    return np.concatenate([numbers * rng.choice([-1.0, 1.0], 3000), np.zeros(50)])


def as_float16(numbers: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return numbers.astype(np.float16).astype(np.float64)


def as_bfloat16(numbers: np.ndarray) -> np.ndarray:
    return torch.from_numpy(numbers).float().bfloat16().double().numpy()


FORMATS = {"float16": as_float16, "bfloat16": as_bfloat16}


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_shares_are_those_of_casting(number_format, seed) -> None:
    numbers = spread(seed)
    cast = FORMATS[number_format](numbers[numbers != 0.0])
    counts = oracles.log2_histogram(numbers)
    under = histogram.underflow_share(counts, number_format)
    over = histogram.overflow_share(counts, number_format)
    assert under == pytest.approx(np.mean(cast == 0.0))
    assert over == pytest.approx(np.mean(np.isinf(cast)))
    assert 0.02 < under < 0.9
    assert 0.02 < over < 0.9


@pytest.mark.parametrize(
    ("number_format", "smallest", "largest"),
    [("float16", 2.0**-24, 65504.0), ("bfloat16", 2.0**-133, 3.3895e38)],
)
def test_the_smallest_and_the_largest_number_of_a_format_are_held(
    number_format, smallest, largest
) -> None:
    assert FORMATS[number_format](np.array([smallest, largest])).tolist() == pytest.approx(
        [smallest, largest], rel=1e-3
    )
    counts = oracles.log2_histogram(np.array([smallest, largest, 0.9 * smallest]))
    assert histogram.underflow_share(counts, number_format) == 0.0
    assert histogram.overflow_share(counts, number_format) == 0.0
    beyond = oracles.log2_histogram(np.array([0.49 * smallest, 1.01 * largest * 256 / 255]))
    assert histogram.underflow_share(beyond, number_format) == 0.5
    assert histogram.overflow_share(beyond, number_format) == 0.5


def test_zeros_and_broken_entries_are_in_no_share() -> None:
    counts = oracles.log2_histogram(np.array([0.0, 0.0, np.nan, np.inf, 1.0, 1e-30]))
    assert histogram.underflow_share(counts, "float16") == 0.5
    assert histogram.overflow_share(counts, "float16") == 0.0


def test_a_layer_without_any_number_has_no_share() -> None:
    counts = oracles.log2_histogram(np.array([0.0, np.nan]))
    assert np.isnan(histogram.underflow_share(counts, "float16"))
    assert np.isnan(histogram.overflow_share(counts, "bfloat16"))


def test_octaves_leave_out_zeros_and_broken_entries_and_keep_the_rest() -> None:
    numbers = np.array([0.0, np.nan, 5e-324, 2.0**-97, 2.0**-96, 1.0, 2.0**31, 2.0**32, 1e300])
    found = histogram.octaves(oracles.log2_histogram(numbers))
    assert len(found) == schema.HISTOGRAM_HIGH - schema.HISTOGRAM_LOW + 2
    assert {i: n for i, n in enumerate(found.tolist()) if n} == {0: 2, 1: 1, 97: 1, 128: 1, 129: 2}


def test_a_frame_says_it_for_each_layer() -> None:
    counts = np.array([oracles.log2_histogram(spread(seed)) for seed in range(4)])
    frame = make_frame(log2_histogram=counts)
    for number_format in FORMATS:
        for end, share in (
            ("underflow", histogram.underflow_share),
            ("overflow", histogram.overflow_share),
        ):
            expected = [share(row, number_format) for row in counts]
            found = getattr(frame, f"{number_format}_{end}")
            np.testing.assert_array_equal(found, expected)
            assert getattr(make_frame(), f"{number_format}_{end}") is None
