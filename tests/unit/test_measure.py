"""Sums equal those of numpy in float64, whoever measures; torch's own shortcuts do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_gradguard import measure, schema
from lightning_gradguard.measure import device, foreach
from tests import oracles
from tests.measuring import BACKENDS, Measuring, precision

LARGE = 3 * (1 << 16) + 17  # several blocks, sampled
SIZES = [1, 5, measure.SAMPLE_SIZE, measure.SAMPLE_SIZE + 1, LARGE]
EXACT = ("squares", "total", "abs_max", "nonfinite")


@pytest.fixture(params=BACKENDS.values(), ids=BACKENDS.keys())
def backend(request):
    return request.param


def assert_sums_equal(backend, *tensors: Tensor) -> None:
    found = Measuring(backend, tensors).sums()
    for column, tensor in enumerate(tensors):
        rtol = precision(backend, tensor)
        numbers = oracles.entries(tensor)
        expected = oracles.statistics(numbers)
        # A sum may cancel out, but only as far as its terms are known.
        scale = float(np.abs(numbers).sum()) if numbers.size else 0.0
        for name in EXACT:
            absolute = rtol * scale if name == "total" else 0.0
            number = pytest.approx(expected[name], rel=rtol, abs=absolute, nan_ok=True)
            assert found[name][column] == number, name
        if tensor.numel() <= measure.SAMPLE_SIZE:
            assert found["zeros"][column] == expected["zeros"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", SIZES)
def test_statistics_equal_float64_numpy_whatever_dtype_and_size(backend, dtype, size) -> None:
    assert_sums_equal(backend, torch.randn(size).to(dtype))


def test_tensors_of_several_dtypes_and_sizes_are_measured_together(backend) -> None:
    dtypes = [torch.float16, torch.float32, torch.bfloat16, torch.float64]
    assert_sums_equal(
        backend, *(torch.randn(LARGE if i % 3 else 50).to(dtypes[i % 4]) for i in range(8))
    )


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("size", [6, LARGE])
def test_complex_number_counts_as_two_entries(backend, dtype, size) -> None:
    tensor = torch.randn(size, dtype=dtype)
    assert measure.plain_values(tensor).numel() == 2 * size
    assert_sums_equal(backend, tensor)
    assert_sums_equal(backend, tensor.conj())


@pytest.mark.parametrize("width", [2, 3000])
def test_sparse_gradient_adds_up_duplicate_rows_first(backend, width) -> None:
    tensor = torch.sparse_coo_tensor(
        torch.tensor([[0, 3, 0, 3, 1]]),
        torch.randn(5, width, dtype=torch.float64),
        (9, width),
        check_invariants=True,
    )
    assert measure.plain_values(tensor).numel() == 3 * width
    assert_sums_equal(backend, tensor)
    assert not tensor.is_coalesced()  # the gradient itself stays as it was


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_compressed_sparse_gradient_is_read_from_its_stored_values(backend) -> None:
    tensor = torch.tensor([[0.0, 3.0], [4.0, 0.0]]).to_sparse_csr()
    sums = Measuring(backend, [tensor]).sums()
    assert [sums[name].item() for name in (*EXACT, "zeros")] == [25.0, 7.0, 4.0, 0.0, 0.0]


def layouts() -> dict[str, Tensor]:
    image = torch.randn(16, 15, 14, 3, dtype=torch.float64)
    matrix = torch.randn(200, 300, dtype=torch.float64)
    return {
        "channels last": image.to(memory_format=torch.channels_last),
        "transposed": matrix.t(),
        "sliced": matrix[::3, 1::2],
        "small slice": image[:, ::2, :, 1:],
        "expanded": torch.randn(40, 1, dtype=torch.float64).expand(40, 300),
        "scalar": torch.tensor(-3.0, dtype=torch.float64),
        "one number everywhere": torch.tensor(0.1234).expand(300, 200),
        "every second number": torch.rand(300, 400)[:, ::2],
    }


@pytest.mark.parametrize("name", list(layouts()))
def test_statistics_do_not_depend_on_strides(backend, name) -> None:
    assert_sums_equal(backend, layouts()[name])


@pytest.mark.parametrize("name", ["channels last", "transposed"])
def test_dense_tensors_are_flattened_without_a_copy(name) -> None:
    tensor = layouts()[name]
    assert measure.as_vector(tensor).data_ptr() == tensor.data_ptr()


def test_plain_values_never_require_gradients() -> None:
    assert not measure.plain_values(torch.ones(3, requires_grad=True)).requires_grad


def test_empty_tensors_among_others_are_all_zero_and_disturb_nothing(backend) -> None:
    tensors = torch.empty(0), torch.randn(7), torch.empty(3, 0), torch.randn(LARGE), torch.empty(0)
    assert_sums_equal(backend, *tensors)
    assert Measuring(backend, tensors).is_finite()
    assert_sums_equal(backend, torch.empty(0))


def test_a_large_tensor_that_stores_nothing_is_all_zero(backend) -> None:
    plan = measure.Plan.of([3, 0], num_whole=1)
    values = [torch.ones(3), torch.empty(0)]
    numbers = backend.wide(measure.take_sample(plan, values))
    sums = measure.gradient_sums(backend, plan, values, numbers)
    assert {name: float(row[1]) for name, row in sums.items()} == dict.fromkeys(sums, 0.0)


@pytest.fixture
def as_on_apple(monkeypatch):
    """Make the CPU like Apple's GPUs: nothing wider than float32, no reduction of segments."""
    monkeypatch.setattr(device, "_has_segments", lambda _device: False)
    for module in (device, foreach):
        monkeypatch.setattr(module, "widest_dtype", lambda _device: torch.float32)
    device._columns.cache_clear()
    yield
    device._columns.cache_clear()


@pytest.mark.usefixtures("as_on_apple")
def test_without_float64_and_segments_numbers_are_good_to_six_digits() -> None:
    tensors = [torch.randn(50), torch.empty(0), torch.rand(LARGE), torch.zeros(3), torch.rand(7)]
    measuring = Measuring(device, tensors)
    assert measuring.numbers.dtype == torch.float32
    found, counts = measuring.sums(), measuring.histogram()
    for column, tensor in enumerate(tensors):
        expected = oracles.statistics(oracles.entries(tensor))
        for name in EXACT:
            assert found[name][column] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name
        if tensor.numel() < LARGE:
            np.testing.assert_array_equal(
                counts[column], oracles.log2_histogram(oracles.entries(tensor))
            )


@pytest.mark.usefixtures("as_on_apple")
def test_without_segments_what_is_broken_is_found_all_the_same() -> None:
    broken = torch.tensor([1.0, math.nan, math.inf])
    sums = Measuring(device, [torch.ones(4), broken, torch.full((LARGE,), math.inf)]).sums()
    assert sums["nonfinite"].tolist() == [0.0, 2.0, LARGE]
    np.testing.assert_array_equal(sums["abs_max"], [1.0, math.nan, math.inf])


# Where torch's own functions are wrong.


@pytest.mark.parametrize("size", [100, LARGE])
@pytest.mark.parametrize(("entry", "torch_says"), [(1e20, math.inf), (1e-25, 0.0)])
def test_norm_is_exact_where_squares_in_float32_overflow_or_vanish(
    backend, size, entry, torch_says
) -> None:
    tensor = torch.full((size,), entry)
    assert torch.linalg.vector_norm(tensor).item() == torch_says
    assert torch._foreach_norm([tensor])[0].item() == torch_says
    assert torch.nn.utils.get_total_norm([tensor]).item() == torch_says
    exact = math.sqrt(size) * float(np.float32(entry))
    measuring = Measuring(backend, [tensor])
    assert math.sqrt(measuring.sums()["squares"].item()) == pytest.approx(exact, rel=1e-12, abs=0.0)
    assert math.sqrt(measuring.squares().item()) == pytest.approx(exact, rel=1e-12, abs=0.0)


@pytest.mark.parametrize("size", [5000, LARGE])
def test_norm_in_float16_may_be_larger_than_float16_can_say(backend, size) -> None:
    tensor = torch.full((size,), 1000.0, dtype=torch.float16)
    assert torch.linalg.vector_norm(tensor).item() == math.inf
    assert torch._foreach_norm([tensor])[0].item() == math.inf
    measuring = Measuring(backend, [tensor])
    assert math.sqrt(measuring.squares().item()) == pytest.approx(1000.0 * math.sqrt(size))
    assert measuring.is_finite()


def test_norm_of_a_sparse_gradient_is_found_where_foreach_raises(backend) -> None:
    tensor = torch.sparse_coo_tensor([[0, 0]], torch.ones(2, 3), (4, 3), check_invariants=True)
    with pytest.raises(NotImplementedError, match="SparseCPU"):
        torch._foreach_norm([tensor])
    assert Measuring(backend, [tensor]).squares().item() == 12.0  # 3 times (1 + 1)²


# What is broken.


@pytest.mark.parametrize("size", [100, LARGE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_nan_and_infinity_is_counted(backend, size, dtype) -> None:
    tensor = torch.randn(size).to(dtype)
    tensor[7], tensor[50], tensor[-1] = math.nan, math.inf, -math.inf
    healthy = torch.randn(size)
    sums = Measuring(backend, [healthy, tensor]).sums()
    assert sums["nonfinite"].tolist() == [0.0, 3.0]
    assert np.isfinite(sums["squares"]).tolist() == [True, False]
    assert np.isnan(sums["abs_max"]).tolist() == [False, True]


@pytest.mark.parametrize("size", [100, LARGE])
def test_infinity_alone_is_the_largest_magnitude(backend, size) -> None:
    tensor = torch.ones(size)
    tensor[3] = -math.inf
    assert Measuring(backend, [tensor]).sums()["abs_max"].item() == math.inf


@pytest.mark.parametrize("size", [100, LARGE])
def test_entries_whose_squares_overflow_in_float64_are_not_called_broken(backend, size) -> None:
    tensor = torch.full((size,), 1e200, dtype=torch.float64)
    sums = Measuring(backend, [tensor]).sums()
    assert sums["nonfinite"].item() == 0.0
    assert sums["abs_max"].item() == 1e200


@pytest.mark.parametrize("size", [100, LARGE])
@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [math.inf, -math.inf]])
def test_a_glance_sees_what_is_broken_wherever_it_stands(backend, size, bad) -> None:
    tensor = torch.randn(size)
    assert Measuring(backend, [torch.ones(3), tensor]).is_finite()
    tensor[size - len(bad) :] = torch.tensor(bad)
    assert not Measuring(backend, [torch.ones(3), tensor]).is_finite()


# What is sampled.


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_zeros_of_a_large_tensor_are_estimated_within_three_percent(backend, share) -> None:
    tensor = torch.randn(LARGE)
    tensor[torch.rand(LARGE) < share] = 0.0
    zeros = Measuring(backend, [tensor]).sums()["zeros"].item()
    assert zeros / LARGE == pytest.approx(share, abs=0.03)


def test_zero_columns_of_a_matrix_do_not_fool_the_sample(backend) -> None:
    tensor = torch.randn(1024, 1024)
    tensor[:, ::4] = 0.0  # a sample of one column again and again would say 0 or 1
    zeros = Measuring(backend, [tensor]).sums()["zeros"].item()
    assert zeros / tensor.numel() == pytest.approx(0.25, abs=0.03)


def test_a_sample_is_a_copy_in_the_tensors_own_dtype() -> None:
    for size in (10, LARGE):
        tensor = torch.ones(size, dtype=torch.float16)
        sample = Measuring(BACKENDS["host"], [tensor]).sample
        tensor.zero_()
        assert sample.dtype == torch.float16
        assert sample.min().item() == 1.0


def test_squares_from_a_sample_are_exact_for_small_and_close_for_large(backend) -> None:
    tensors = [torch.randn(LARGE), torch.randn(10)]
    large, small = Measuring(backend, tensors).sampled_squares().tolist()
    truth = [oracles.statistics(oracles.entries(tensor))["squares"] for tensor in tensors]
    assert large == pytest.approx(truth[0], rel=0.1)
    assert small == pytest.approx(truth[1], rel=1e-12)


def test_large_tensors_read_whole_are_exact_throughout(backend) -> None:
    tensor = torch.randn(LARGE)
    tensor[torch.rand(LARGE) < 0.2] = 0.0
    measuring = Measuring(backend, [tensor], whole=True)
    truth = oracles.statistics(oracles.entries(tensor))
    assert measuring.sampled_squares().item() == pytest.approx(truth["squares"], rel=1e-12)
    assert measuring.sums()["zeros"].item() == truth["zeros"]


def test_changed_entries_are_counted_exactly_for_small_and_estimated_for_large(backend) -> None:
    before = [torch.ones(LARGE), torch.ones(10)]
    after = [torch.zeros(LARGE), torch.cat([torch.zeros(4), torch.ones(6)])]
    changes = Measuring(backend, before).changes(after)
    assert changes.tolist() == pytest.approx([LARGE, 4.0])


def test_what_only_rounding_changed_is_not_changed(backend) -> None:
    before = torch.randn(1000)
    after = (before * 3.0) / 3.0
    assert not torch.equal(before, after)
    assert Measuring(backend, [before]).changes([after]).item() == 0.0
    assert Measuring(backend, [before]).changes([before * 1.001]).item() == 1000.0


# Histograms.


def histogram(backend, tensor: Tensor) -> np.ndarray:
    return Measuring(backend, [tensor]).histogram()[0]


def test_histogram_of_a_small_tensor_equals_numpy_counting_between_powers_of_two(backend) -> None:
    tensor = (
        torch.randn(4000, dtype=torch.float64) * 2.0 ** torch.linspace(-150, 140, 4000).double()
    )
    tensor[:5] = torch.tensor([0.0, 1.0, 2.0, math.nan, math.inf])
    expected = oracles.log2_histogram(tensor.numpy())
    assert (expected > 0).sum() > 120
    np.testing.assert_array_equal(histogram(backend, tensor), expected)


EDGES = [2.0**power for power in (-135, -134, -97, -96, 0, 31, 32, 127, 128)]


@pytest.mark.parametrize("number", [0.0, 5e-324, *EDGES, 1e300, math.inf, -math.inf, math.nan])
def test_powers_of_two_open_a_column(backend, number) -> None:
    tensor = torch.tensor([number], dtype=torch.float64)
    for numbers in (tensor, -tensor):
        expected = oracles.log2_histogram(numbers.numpy())
        assert len(expected) == schema.HISTOGRAM_BINS
        np.testing.assert_array_equal(histogram(backend, numbers), expected)


@pytest.mark.parametrize("size", [1000, LARGE])
def test_histogram_adds_up_to_the_size_of_the_tensor(backend, size) -> None:
    tensor = torch.randn(size)
    tensor[: size // 4] = 0.0
    tensor[size // 4 : size // 2] = math.nan
    counts = histogram(backend, tensor)
    assert counts.sum() == pytest.approx(size)
    assert counts[0] == pytest.approx(size / 4, rel=0.03)
    assert counts[-1] == pytest.approx(size / 4, rel=0.03)


def test_float16_and_wider_inputs_have_the_same_histogram(backend) -> None:
    tensor = torch.randn(500).half()
    np.testing.assert_array_equal(histogram(backend, tensor), histogram(backend, tensor.double()))


def test_each_tensor_has_a_histogram_of_its_own(backend) -> None:
    tensors = [torch.randn(40), torch.empty(0), torch.zeros(3), torch.full((7,), 1e-30)]
    expected = [oracles.log2_histogram(oracles.entries(tensor)) for tensor in tensors]
    np.testing.assert_array_equal(Measuring(backend, tensors).histogram(), expected)
