"""Laws of measuring."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_gradguard import measure
from tests import oracles

DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


@st.composite
def tensors(draw, *, most=measure.SAMPLE_SIZE) -> Tensor:
    """Draw a vector of any size, dtype and scale, with some zeros."""
    size = draw(st.integers(0, most))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    exponent = draw(st.integers(-4, 4))
    tensor = torch.randn(size, generator=generator) * 10.0**exponent
    tensor[: size // 5] = 0.0
    return tensor.to(draw(DTYPES))


def measured(values: list[Tensor]) -> np.ndarray:
    return measure.measure(values, measure.sample(values)).numpy()


@given(st.lists(tensors(most=10_000), min_size=1, max_size=6))
def test_every_column_is_what_numpy_says_of_its_tensor(values) -> None:
    rows = measured(values)
    for column, value in zip(rows.T, values, strict=True):
        squares, largest, zeros, nonfinite = oracles.statistics(oracles.entries(value))
        np.testing.assert_allclose(column[0], squares, rtol=1e-12)
        assert (column[1], column[3]) == (largest, nonfinite)
        if value.numel() <= measure.SAMPLE_SIZE:
            assert round(column[2]) == zeros


@given(tensors(most=10_000), st.sampled_from([-8.0, -0.5, 2.0, 1024.0]))
def test_norm_scales_with_the_gradient(value, factor) -> None:
    value = value.double()
    plain, scaled = measured([value])[:, 0], measured([factor * value])[:, 0]
    np.testing.assert_allclose(np.sqrt(scaled[0]), abs(factor) * np.sqrt(plain[0]), rtol=1e-12)
    assert scaled[1] == abs(factor) * plain[1]
    assert scaled[2] == plain[2]


@given(st.lists(tensors(most=10_000), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_permuting_tensors_permutes_columns(values, random) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    rows = measured(values)
    np.testing.assert_array_equal(measured([values[i] for i in order]), rows[:, order])


@given(tensors(most=10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_sums_of_shards_add_up_to_the_whole(value, cut, other_cut) -> None:
    first, last = sorted((cut, other_cut))
    shards = measured([value[:first], value[first:last], value[last:]])
    whole = measured([value])[:, 0]
    np.testing.assert_allclose(shards[0].sum(), whole[0], rtol=1e-12)
    assert shards[1].max() == whole[1]
    assert shards[3].sum() == whole[3]
    if value.numel() <= measure.SAMPLE_SIZE:
        assert shards[2].sum() == whole[2]


@given(tensors())
def test_histogram_and_zeros_of_a_small_tensor_count_every_entry_once(value) -> None:
    counts = measure.histogram(measure.sample([value]), [value])[0]
    np.testing.assert_array_equal(counts.numpy(), oracles.log2_histogram(oracles.entries(value)))
    assert counts.sum().item() + measured([value])[2, 0] == value.numel()


@given(tensors(most=5000), st.integers(1, 60))
def test_shape_and_strides_do_not_matter(value, width) -> None:
    matrix = value[: value.numel() // width * width].reshape(-1, width)
    plain = measured([measure.flat_values(matrix.reshape(-1))])
    turned = measured([measure.flat_values(matrix.t())])
    np.testing.assert_allclose(turned[[0, 1, 3]], plain[[0, 1, 3]], rtol=1e-12)
