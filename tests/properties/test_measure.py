"""Laws of measuring, whoever measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_gradguard import measure
from lightning_gradguard.measure import Plan
from lightning_gradguard.measure.plan import RUN
from tests import oracles
from tests.measuring import BACKENDS, Measuring, precision

DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])

both = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS.keys())


@st.composite
def tensors(draw, *, most=measure.SAMPLE_SIZE) -> Tensor:
    """Draw a vector of any size, dtype and scale, with some zeros."""
    size = draw(st.integers(0, most))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    exponent = draw(st.integers(-4, 4))
    tensor = torch.randn(size, generator=generator) * 10.0**exponent
    tensor[: size // 5] = 0.0
    return tensor.to(draw(DTYPES))


several = st.lists(tensors(most=10_000), min_size=1, max_size=6)


def measured(backend, values: list[Tensor]) -> dict[str, np.ndarray]:
    return Measuring(backend, values).sums()


@both
@given(several)
def test_every_column_is_what_numpy_says_of_its_tensor(backend, values) -> None:
    found = measured(backend, values)
    for column, value in enumerate(values):
        numbers = oracles.entries(value)
        expected = oracles.statistics(numbers)
        rtol = precision(backend, value)
        np.testing.assert_allclose(found["squares"][column], expected["squares"], rtol)
        slack = rtol * np.abs(numbers).sum()
        np.testing.assert_allclose(found["total"][column], expected["total"], rtol, slack)
        assert found["abs_max"][column] == expected["abs_max"]
        assert found["nonfinite"][column] == expected["nonfinite"]
        if value.numel() <= measure.SAMPLE_SIZE:
            assert found["zeros"][column] == expected["zeros"]


@given(several)
def test_host_and_device_agree(values) -> None:
    host, device = (measured(backend, values) for backend in BACKENDS.values())
    slack = 1e-6 * sum(value.double().abs().sum().item() for value in values)
    for name in host:
        np.testing.assert_allclose(host[name], device[name], rtol=1e-6, atol=slack)
    counts = [Measuring(backend, values).histogram() for backend in BACKENDS.values()]
    np.testing.assert_allclose(*counts)


@both
@given(value=tensors(most=10_000), factor=st.sampled_from([-8.0, -0.5, 2.0, 1024.0]))
def test_sums_scale_with_the_gradient(backend, value, factor) -> None:
    value = value.double()
    plain, scaled = measured(backend, [value]), measured(backend, [factor * value])
    np.testing.assert_allclose(scaled["squares"], factor**2 * plain["squares"], rtol=1e-12)
    np.testing.assert_allclose(scaled["total"], factor * plain["total"], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(scaled["abs_max"], abs(factor) * plain["abs_max"])
    np.testing.assert_array_equal(scaled["zeros"], plain["zeros"])


@both
@given(values=several, random=st.randoms(use_true_random=False))
def test_permuting_tensors_permutes_columns(backend, values, random) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    plain, moved = measured(backend, values), measured(backend, [values[i] for i in order])
    for name in plain:
        np.testing.assert_allclose(moved[name], plain[name][order], rtol=1e-12, atol=1e-12)


@both
@given(value=tensors(most=10_000), cut=st.integers(0, 10_000), other_cut=st.integers(0, 10_000))
def test_sums_of_shards_add_up_to_the_whole(backend, value, cut, other_cut) -> None:
    first, last = sorted((cut, other_cut))
    shards = measured(backend, [value[:first], value[first:last], value[last:]])
    whole = {name: row[0] for name, row in measured(backend, [value]).items()}
    rtol = precision(backend, value)
    np.testing.assert_allclose(shards["squares"].sum(), whole["squares"], rtol)
    slack = rtol * value.double().abs().sum().item()
    np.testing.assert_allclose(shards["total"].sum(), whole["total"], rtol, slack)
    assert shards["abs_max"].max() == whole["abs_max"]
    assert shards["nonfinite"].sum() == whole["nonfinite"]
    if value.numel() <= measure.SAMPLE_SIZE:
        assert shards["zeros"].sum() == whole["zeros"]


@both
@given(value=tensors())
def test_histogram_of_a_small_tensor_counts_every_entry_once(backend, value) -> None:
    measuring = Measuring(backend, [value])
    counts = measuring.histogram()[0]
    np.testing.assert_array_equal(counts, oracles.log2_histogram(oracles.entries(value)))
    assert counts.sum() == value.numel()
    assert counts[0] == measuring.sums()["zeros"].item()


@both
@given(value=tensors(most=5000), width=st.integers(1, 60))
def test_shape_and_strides_do_not_matter(backend, value, width) -> None:
    matrix = value[: value.numel() // width * width].reshape(-1, width)
    plain, turned = measured(backend, [matrix.reshape(-1)]), measured(backend, [matrix.t()])
    for name in ("squares", "abs_max", "nonfinite"):
        np.testing.assert_allclose(turned[name], plain[name], rtol=1e-12)


@both
@given(
    value=tensors(most=10_000),
    place=st.integers(0, 9_999),
    bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]),
)
def test_a_glance_is_finite_exactly_if_every_entry_is(backend, value, place, bad) -> None:
    assert Measuring(backend, [value]).is_finite()
    if place < value.numel():
        value[place] = bad
        assert not Measuring(backend, [value]).is_finite()


shapes = st.lists(
    st.lists(st.integers(0, 4), min_size=0, max_size=3).map(tuple), min_size=1, max_size=12
)


@given(shapes, st.booleans())
def test_joining_tensors_of_one_width_first_changes_no_sample(shapes, knows_shapes) -> None:
    values = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    plan = Plan.of([v.numel() for v in values], len(values), shapes if knows_shapes else ())
    expected = torch.cat([value.flatten() for value in values])
    assert torch.equal(measure.take_sample(plan, values), expected)


@given(st.integers(measure.SAMPLE_SIZE + 1, 10**9))
def test_a_sample_is_small_and_reaches_from_end_to_end(size) -> None:
    plan = Plan.of([size], num_whole=0)
    last = (plan.taken[0] // RUN - 1) * plan.strides[0] + RUN
    assert size - plan.strides[0] < last <= size
    assert 500 < plan.taken[0] <= measure.SAMPLE_SIZE + RUN
    assert plan.taken[0] * plan.weights[0] == pytest.approx(size)
