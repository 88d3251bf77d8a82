"""Sums on the device equal those of numpy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_gradguard import measure, schema
from tests import oracles

LARGE = 3 * (1 << 16) + 17  # several blocks, sampled


def measured(*tensors: Tensor) -> np.ndarray:
    values = [measure.flat_values(tensor) for tensor in tensors]
    return measure.measure(values, measure.sample(values)).numpy()


def expected(*tensors: Tensor) -> np.ndarray:
    return np.array([oracles.statistics(oracles.entries(tensor)) for tensor in tensors]).T


def histogram(tensor: Tensor) -> np.ndarray:
    values = [measure.flat_values(tensor)]
    return measure.histogram(measure.sample(values), values)[0].numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [1, 5, measure.SAMPLE_SIZE, measure.SAMPLE_SIZE + 1, LARGE])
def test_statistics_equal_float64_numpy_whatever_dtype_and_size(dtype, size) -> None:
    tensor = torch.randn(size).to(dtype)
    np.testing.assert_allclose(measured(tensor), expected(tensor), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("size", [6, LARGE])
def test_complex_number_counts_as_two_entries(dtype, size) -> None:
    tensor = torch.randn(size, dtype=dtype)
    np.testing.assert_allclose(measured(tensor), expected(tensor), rtol=1e-12)
    assert measure.flat_values(tensor).numel() == 2 * size
    np.testing.assert_allclose(measured(tensor.conj()), expected(tensor), rtol=1e-12)


@pytest.mark.parametrize("width", [2, 3000])
def test_sparse_gradient_adds_up_duplicate_rows_first(width) -> None:
    tensor = torch.sparse_coo_tensor(
        torch.tensor([[0, 3, 0, 3, 1]]),
        torch.randn(5, width, dtype=torch.float64),
        (9, width),
        check_invariants=True,
    )
    np.testing.assert_allclose(measured(tensor), expected(tensor), rtol=1e-12)
    assert measure.flat_values(tensor).numel() == 3 * width


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_compressed_sparse_gradient_is_read_from_its_stored_values() -> None:
    tensor = torch.tensor([[0.0, 3.0], [4.0, 0.0]]).to_sparse_csr()
    assert measured(tensor)[:, 0].tolist() == [25.0, 4.0, 0.0, 0.0]


def layouts() -> dict[str, Tensor]:
    image = torch.randn(6, 5, 4, 3, dtype=torch.float64)
    matrix = torch.randn(200, 300, dtype=torch.float64)
    return {
        "channels last": image.to(memory_format=torch.channels_last),
        "transposed": matrix.t(),
        "sliced": matrix[::3, 1::2],
        "small slice": image[:, ::2, :, 1:],
        "expanded": torch.randn(40, 1, dtype=torch.float64).expand(40, 300),
        "scalar": torch.tensor(-3.0, dtype=torch.float64),
    }


@pytest.mark.parametrize("name", list(layouts()))
def test_statistics_do_not_depend_on_strides(name) -> None:
    tensor = layouts()[name]
    np.testing.assert_allclose(measured(tensor), expected(tensor), rtol=1e-12)


@pytest.mark.parametrize("name", ["channels last", "transposed"])
def test_dense_tensors_are_flattened_without_a_copy(name) -> None:
    tensor = layouts()[name]
    assert measure.flat_values(tensor).data_ptr() == tensor.data_ptr()


def test_flat_values_never_require_gradients() -> None:
    assert not measure.flat_values(torch.ones(3, requires_grad=True)).requires_grad


def test_empty_tensors_among_others_are_all_zero_and_disturb_nothing() -> None:
    tensors = torch.empty(0), torch.randn(7), torch.empty(3, 0), torch.randn(LARGE)
    np.testing.assert_allclose(measured(*tensors), expected(*tensors), rtol=1e-12)


@pytest.mark.parametrize("size", [100, LARGE])
@pytest.mark.parametrize(("entry", "in_float32"), [(1e20, math.inf), (1e-25, 0.0)])
def test_norm_is_exact_where_squares_in_float32_overflow_or_vanish(size, entry, in_float32) -> None:
    tensor = torch.full((size,), entry)
    assert tensor.square().sum().sqrt().item() == in_float32
    values = [measure.flat_values(tensor)]
    exact = math.sqrt(size) * float(np.float32(entry))
    assert math.sqrt(measured(tensor)[0, 0]) == pytest.approx(exact, rel=1e-12)
    alone = measure.sum_of_squares(values, measure.sample(values)).item()
    assert math.sqrt(alone) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("size", [100, LARGE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_nan_and_infinity_is_counted(size, dtype) -> None:
    tensor = torch.randn(size).to(dtype)
    tensor[7], tensor[50], tensor[-1] = math.nan, math.inf, -math.inf
    squares, largest, _, nonfinite = measured(tensor)[:, 0]
    assert nonfinite == 3
    assert not math.isfinite(squares)
    assert math.isnan(largest)


@pytest.mark.parametrize("size", [100, LARGE])
def test_infinity_alone_is_the_largest_magnitude(size) -> None:
    tensor = torch.ones(size)
    tensor[3] = -math.inf
    assert measured(tensor)[1, 0] == math.inf


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_zeros_of_a_large_tensor_are_estimated_within_three_percent(share) -> None:
    tensor = torch.randn(LARGE)
    tensor[torch.rand(LARGE) < share] = 0.0
    assert measured(tensor)[2, 0] / LARGE == pytest.approx(share, abs=0.03)


def test_zero_columns_of_a_matrix_do_not_fool_the_sample() -> None:
    tensor = torch.randn(1024, 1024)
    tensor[:, ::4] = 0.0  # a sample of one column again and again would say 0 or 1
    assert measured(tensor)[2, 0] / tensor.numel() == pytest.approx(0.25, abs=0.03)


def test_sample_is_whole_for_small_and_limited_for_large_tensors() -> None:
    small, large = torch.arange(9.0), torch.arange(float(LARGE))
    taken = measure.sample([small, large])
    assert taken[:9].tolist() == list(range(9))
    rest = taken[9:]
    assert 0.9 * measure.SAMPLE_SIZE < len(rest) <= measure.SAMPLE_SIZE
    assert len(set(np.diff(rest.numpy()))) == 1
    assert taken.dtype == torch.float64


def test_sum_of_squares_is_exact_for_small_and_large() -> None:
    tensors = [torch.randn(10), torch.randn(LARGE), torch.empty(0)]
    found = measure.sum_of_squares(tensors, measure.sample(tensors))
    np.testing.assert_allclose(found.numpy(), expected(*tensors)[0], rtol=1e-12)


def test_squares_from_a_sample_are_exact_for_small_and_close_for_large() -> None:
    tensors = [torch.randn(10), torch.randn(LARGE)]
    small, large = measure.segment_squares(measure.sample(tensors), tensors).tolist()
    truth = expected(*tensors)[0]
    assert small == pytest.approx(truth[0], rel=1e-12)
    assert large == pytest.approx(truth[1], rel=0.1)


def test_changed_entries_are_counted_exactly_for_small_and_estimated_for_large() -> None:
    before = [torch.zeros(10), torch.zeros(LARGE)]
    after = [torch.cat([torch.ones(4), torch.zeros(6)]), torch.ones(LARGE)]
    samples = measure.sample(before), measure.sample(after)
    found = measure.segment_changes(*samples, before).tolist()
    assert found == pytest.approx([4.0, LARGE])


def test_histogram_of_a_small_tensor_equals_numpy_counting_between_powers_of_two() -> None:
    tensor = torch.randn(4000, dtype=torch.float64) * 10.0 ** torch.linspace(-28, 9, 4000).double()
    tensor[:5] = torch.tensor([0.0, 1.0, 2.0, math.nan, math.inf])
    np.testing.assert_array_equal(histogram(tensor), oracles.log2_histogram(tensor.numpy()))


def test_histogram_has_the_bins_of_the_schema_and_powers_of_two_open_a_bin() -> None:
    low, high = schema.HISTOGRAM_LOW, schema.HISTOGRAM_HIGH
    counts = histogram(torch.tensor([2.0**low, 1.0, 2.0 ** (high - 1)], dtype=torch.float64))
    assert len(counts) == schema.HISTOGRAM_BINS
    assert np.flatnonzero(counts).tolist() == [1, 1 - low, schema.HISTOGRAM_BINS - 2]


def test_histogram_ends_take_what_is_outside() -> None:
    numbers = [2.0**-97, 5e-324, 2.0**32, 1e300, 1.0, -1e300]
    counts = histogram(torch.tensor(numbers, dtype=torch.float64))
    assert (counts[0], counts[-1], counts.sum()) == (2, 3, 6)


@pytest.mark.parametrize("size", [1000, LARGE])
def test_histogram_adds_up_to_the_entries_that_are_neither_zero_nor_broken(size) -> None:
    tensor = torch.randn(size)
    tensor[: size // 4] = 0.0
    tensor[size // 4 : size // 2] = math.nan
    assert histogram(tensor).sum() == pytest.approx(size / 2, rel=0.01)


def test_float16_and_wider_inputs_have_the_same_histogram() -> None:
    tensor = torch.randn(500).half()
    np.testing.assert_array_equal(histogram(tensor), histogram(tensor.double()))
