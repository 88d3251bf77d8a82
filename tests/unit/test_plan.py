"""What is known of tensors before they are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_gradguard.measure import SAMPLE_SIZE, Plan, take_sample
from lightning_gradguard.measure.plan import RUN


def test_small_tensors_are_taken_whole_and_large_ones_at_a_stride() -> None:
    plan = Plan.of([9, 0, 1_000_003], num_whole=2)
    assert plan.taken[:2].tolist() == [9, 0]
    assert 1000 < plan.taken[2] <= SAMPLE_SIZE + RUN
    assert plan.starts.tolist() == [0, 9, 9]
    assert (plan.weights * plan.taken).tolist() == pytest.approx([9, 0, 1_000_003])
    assert plan.filled.tolist() == [0, 2]
    assert plan.has_empty


def test_a_sample_takes_runs_of_neighbours_at_even_distances() -> None:
    size = 1_000_003
    plan = Plan.of([3, size], num_whole=1)
    values = [torch.arange(3.0), torch.arange(size, dtype=torch.float64)]
    sample = take_sample(plan, values).numpy()
    assert sample[:3].tolist() == [0.0, 1.0, 2.0]
    assert len(sample) == plan.taken.sum()
    runs = sample[3:].reshape(-1, RUN)
    assert np.unique(np.diff(runs, axis=1)).tolist() == [1.0]
    assert np.unique(np.diff(runs[:, 0])).tolist() == [plan.strides[1]]


@pytest.mark.parametrize("shape", [(1024, 1024), (4096, 11_008), (512, 256, 3, 3), (50_257, 768)])
def test_a_sample_visits_rows_columns_and_kernel_positions_alike(shape) -> None:
    size = int(np.prod(shape))
    plan = Plan.of([size], 0, [shape])
    sample = take_sample(plan, [torch.arange(size)])
    places = np.unravel_index(sample.numpy(), shape)
    for axis, extent in enumerate(shape):
        # Halves and thirds of each axis get their share.
        for parts in (2, 3):
            counts = np.bincount(places[axis] * parts // extent, minlength=parts)
            shares = np.bincount(np.arange(extent) * parts // extent, minlength=parts) / extent
            np.testing.assert_allclose(counts / counts.sum(), shares, atol=0.03)


def groups(*shapes, num_whole=None):
    sizes = [int(np.prod(shape)) for shape in shapes]
    plan = Plan.of(sizes, len(shapes) if num_whole is None else num_whole, shapes)
    return [(group.start, group.stop) for group in plan.groups]


def test_neighbours_that_differ_in_their_first_dimension_only_are_joined() -> None:
    assert groups((3,), (5,), (0,)) == [(0, 3)]
    assert groups((3, 4), (5, 4), (5, 5), (5, 5)) == [(0, 2), (2, 4)]
    assert groups((2, 3, 4), (1, 3, 4), (3, 4)) == [(0, 2), (2, 3)]


def test_what_has_no_dimension_cannot_be_joined() -> None:
    assert groups((), (), (2,)) == [(0, 1), (1, 2), (2, 3)]


def test_large_tensors_are_in_no_group() -> None:
    assert groups((3, 4), (9, 4), (5000, 4), (6000, 4), num_whole=2) == [(0, 2)]
    assert groups((5000, 4), num_whole=0) == []


def test_without_shapes_nothing_is_joined() -> None:
    assert Plan.of([3, 4], num_whole=2).groups == ()


def test_channels_last_tensors_keep_their_places_when_joined() -> None:
    shapes = [(2, 3, 4, 5), (6, 3, 4, 5)]
    values = [torch.randn(s).to(memory_format=torch.channels_last) for s in shapes]
    plan = Plan.of([value.numel() for value in values], 2, shapes)
    parts = take_sample(plan, values).split([value.numel() for value in values])
    for part, value in zip(parts, values, strict=True):
        assert part.sort().values.tolist() == value.flatten().sort().values.tolist()
