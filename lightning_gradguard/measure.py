"""Gradients in, sums out, all on the device.

In: tensors. Out: one small float64 tensor with a row per statistic and a column per tensor.
Nothing here asks the device for a number: what is needed to decide is known from shapes.

Sums and maxima can be merged over shards; norms cannot, so norms are made on the host.
Squares are taken in float64, where entries from 1e-150 to 1e150 neither vanish nor overflow.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from lightning_gradguard import schema
from lightning_gradguard.devices import widest_dtype

__all__ = [
    "GRADIENT_STATISTICS",
    "SAMPLE_SIZE",
    "flat_values",
    "histogram",
    "measure",
    "sample",
    "sum_of_squares",
]

GRADIENT_STATISTICS: Final = ("squares", "abs_max", "zeros", "nonfinite")
"""Rows of what `measure` returns."""

SAMPLE_SIZE: Final = 4096
"""A tensor with more entries than this is sampled where a statistic allows it."""

_BLOCK: Final = 1 << 16
"""Entries that stay in a CPU core's cache between one reduction and the next."""


def flat_values(tensor: Tensor) -> Tensor:
    """Return all stored values of a tensor as one vector, without a copy where possible.

    Args:
        tensor: Any shape, layout and dtype. Of a sparse tensor the stored values are taken,
            after adding up duplicates; a complex number counts as two.
    """
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = (
            tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()
        )
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_contiguous():
        # Channels-last and transposed gradients are dense: put their strides in order.
        order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
        tensor = tensor.permute(order)
    return tensor.reshape(-1)


def measure(values: Sequence[Tensor], samples: Tensor) -> Tensor:
    """Reduce each vector to its statistics.

    Args:
        values: At least one vector from `flat_values`, all on one device, of any floating
            dtype; may be empty vectors.
        samples: What `sample` returned for them.

    Returns:
        The rows of `GRADIENT_STATISTICS`: sum of squares, largest magnitude, number of zeros
        and number of non-finite entries. Exact, but for the zeros of vectors with more than
        `SAMPLE_SIZE` entries, which are estimated from a sample.

    Shape:
        ``(statistics, tensors)``, float64, on the device of ``values``.

    Cost:
        No host sync. About 4 ns per entry on one CPU core; one temporary block of 65,536
        entries on a CPU, one copy of the largest tensor elsewhere.

    Example:
        >>> values = [torch.tensor([3.0, 0.0, -4.0])]
        >>> squares, abs_max, zeros, nonfinite = measure(values, sample(values))
        >>> squares.item(), abs_max.item(), zeros.item(), nonfinite.item()
        (25.0, 4.0, 1.0, 0.0)
    """
    lengths = _lengths(values, samples.device)
    sizes = _sizes(values, samples.device)
    magnitudes = samples.abs()
    rows = torch.stack(
        [
            _segments(samples.square(), lengths),
            torch.segment_reduce(magnitudes, "max", lengths=lengths, unsafe=True, initial=0.0),
            _segments((samples == 0).to(samples.dtype), lengths) * sizes,
            _segments((~torch.isfinite(samples)).to(samples.dtype), lengths),
        ]
    )
    if large := _large(values):
        exact = _measure_large([values[i] for i in large])
        columns = _constant(large, samples.device, torch.int64)
        for row, numbers in zip((0, 1, 3), exact, strict=True):
            rows[row].index_copy_(0, columns, numbers)
    return rows


def sample(values: Sequence[Tensor]) -> Tensor:
    """Join a fixed sample of each vector: all of a small one, evenly spaced entries of a large.

    The spacing has no common factor with the size, so that it walks over all rows, columns
    and kernel positions instead of hitting the same ones again and again.

    Args:
        values: Vectors from `flat_values`, all on one device.

    Returns:
        One float64 vector: up to `SAMPLE_SIZE` entries of each input, one after another.
    """
    taken = [
        value if value.numel() <= SAMPLE_SIZE else value[:: _stride(value.numel())]
        for value in values
    ]
    return torch.cat(taken).to(widest_dtype(taken[0].device))


def sum_of_squares(values: Sequence[Tensor], samples: Tensor) -> Tensor:
    """Return the exact sum of squares of each vector.

    Args:
        values: Vectors from `flat_values`, all on one device.
        samples: What `sample` returned for them.

    Shape:
        ``(tensors,)``, float64.

    Cost:
        No host sync; about 1 ns per entry on one CPU core.
    """
    squares = _segments(samples.square(), _lengths(values, samples.device))
    if large := _large(values):
        blocks, counts = _blocks([values[i] for i in large])
        columns = _constant(large, samples.device, torch.int64)
        squares.index_copy_(0, columns, _block_squares(blocks, counts))
    return squares


def segment_squares(samples: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Estimate each vector's sum of squares from a joined sample.

    Args:
        samples: What `sample` returned for vectors of these sizes, or a function of it.
        values: The vectors, for their sizes only.

    Shape:
        ``(tensors,)``, float64.
    """
    lengths = _lengths(values, samples.device)
    return _segments(samples.square(), lengths) * _sizes(values, samples.device)


def segment_changes(before: Tensor, after: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Estimate how many entries of each vector differ between two joined samples.

    What differs by rounding only, as after multiplying by a scale and dividing again, is equal.

    Shape:
        ``(tensors,)``, float64.
    """
    lengths = _lengths(values, before.device)
    changed = ((before - after).abs() > 1e-6 * before.abs()).to(before.dtype)
    return _segments(changed, lengths) * _sizes(values, before.device)


def histogram(samples: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Count entries by the octave of their magnitude.

    Args:
        samples: What `sample` returned for these vectors.
        values: The vectors, for their sizes only.

    Returns:
        Estimated counts. Column 0 is underflow, column ``k`` counts magnitudes from
        ``2**(HISTOGRAM_LOW + k - 1)`` up to twice that, the last column is overflow. Zeros
        and non-finite entries are in no column.

    Shape:
        ``(tensors, HISTOGRAM_BINS)``, float64.

    Example:
        >>> g = [torch.tensor([1.0, 1.5, 0.0, 4.0])]
        >>> counts = histogram(sample(g), g)[0]
        >>> [(i - 1 + schema.HISTOGRAM_LOW, int(n)) for i, n in enumerate(counts) if n]
        [(0, 2), (2, 1)]
    """
    bins = schema.HISTOGRAM_BINS
    lengths = _lengths(values, samples.device)
    # frexp writes x as m * 2**e with m in [0.5, 1), so the octave is e - 1.
    octave = torch.frexp(samples).exponent.to(torch.int64) - 1
    column = (octave - schema.HISTOGRAM_LOW + 1).clamp_(0, bins - 1)
    row = torch.repeat_interleave(
        torch.arange(len(values), device=samples.device), lengths, output_size=samples.numel()
    )
    counted = (torch.isfinite(samples) & (samples != 0)).to(samples.dtype)
    counts = torch.zeros(len(values) * bins, dtype=samples.dtype, device=samples.device)
    counts.scatter_add_(0, row * bins + column, counted)
    return counts.view(len(values), bins) * _sizes(values, samples.device).unsqueeze(1)


def _measure_large(values: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return sum of squares, largest magnitude and non-finite count, each ``(tensors,)``."""
    blocks, counts = _blocks(values)
    dtype = widest_dtype(blocks[0].device)
    extremes = torch.stack([torch.stack(torch.aminmax(block)) for block in blocks])
    # x - x is 0 for a finite x and NaN otherwise, and NaN counts as non-zero: four times as
    # fast as isfinite here.
    bad = torch.stack([torch.count_nonzero(block - block) for block in blocks])
    peaks = extremes.to(dtype).abs().amax(dim=1)
    return (
        _block_squares(blocks, counts),
        torch.segment_reduce(peaks, "max", lengths=counts, unsafe=True, initial=0.0),
        _segments(bad.to(dtype), counts),
    )


def _large(values: Sequence[Tensor]) -> tuple[int, ...]:
    return tuple(i for i, value in enumerate(values) if value.numel() > SAMPLE_SIZE)


def _block_squares(blocks: Sequence[Tensor], counts: Tensor) -> Tensor:
    dtype = widest_dtype(blocks[0].device)
    norms = torch._foreach_norm(list(blocks), 2, dtype=dtype)  # noqa: SLF001 - as torch.nn.utils
    return _segments(torch.stack(norms).square(), counts)


def _blocks(values: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Cut vectors to the size of a CPU's cache; leave them whole on a device."""
    device = values[0].device
    if device.type != "cpu":
        return list(values), _constant((1,) * len(values), device, torch.int64)
    cut = [torch.split(value, _BLOCK) for value in values]
    counts = _constant(tuple(len(blocks) for blocks in cut), device, torch.int64)
    return [block for blocks in cut for block in blocks], counts


def _segments(data: Tensor, lengths: Tensor) -> Tensor:
    return torch.segment_reduce(data, "sum", lengths=lengths, unsafe=True, initial=0.0)


@functools.lru_cache(maxsize=4096)
def _stride(size: int) -> int:
    """Return the spacing that takes at most `SAMPLE_SIZE` of ``size`` entries."""
    stride = max(1, -(-size // SAMPLE_SIZE))
    while stride > 1 and math.gcd(stride, size) > 1:
        stride += 1
    return stride


def _lengths(values: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return how many entries `sample` takes of each vector."""
    sizes = tuple(-(-v.numel() // _stride(v.numel())) for v in values)
    return _constant(sizes, device, torch.int64)


def _sizes(values: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return, for each vector, how many of its entries one sampled entry stands for."""
    weights = []
    for value in values:
        size = value.numel()
        weights.append(size / -(-size // _stride(size)) if size else 1.0)
    return _constant(tuple(weights), device, widest_dtype(device))


@functools.lru_cache(maxsize=256)
def _constant(numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Keep small tables on the device, so that building them does not wait for it each step."""
    return torch.tensor(numbers, device=device, dtype=dtype)
