"""What runs on a CUDA device for `kernel`: two programs, which Triton compiles.

In: addresses and tables on the device. Out: sums there. Triton comes with torch for CUDA and is
imported at the first use; the functions below are never called from Python.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import triton.language as tl
else:
    # The name that the programs look up when they are compiled: set by `compiled`.
    tl = None

__all__ = ["compiled"]


@functools.cache
def compiled() -> tuple[Any, Any]:
    """Return the program that reads chunks and the one that adds them up."""
    import triton
    import triton.language

    # What Triton compiles may name modules and constants only, and it reads annotations, too.
    globals()["tl"] = triton.language
    # Numbers that Triton would otherwise compile a kernel each for: 1, multiples of 16, others.
    return (
        triton.jit(_reduce_chunks, do_not_specialize=["first", "total"]),
        triton.jit(_reduce_tensors, do_not_specialize=["total", "tensors"]),
    )


def _reduce_chunks(  # noqa: PLR0917 - Triton's  # pragma: no cover - runs on the device
    pointers: tl.tensor,
    chunks: tl.tensor,
    partials: tl.tensor,
    first: tl.tensor,
    total: tl.tensor,
    kind: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Read one chunk and write its four numbers to a column of ``(4, total)``."""
    place = tl.program_id(0) + first
    tensor = tl.load(chunks + 3 * place)
    offset = tl.load(chunks + 3 * place + 1)
    length = tl.load(chunks + 3 * place + 2)
    source = tl.load(pointers + tensor).to(tl.pointer_type(kind)) + offset
    lane = tl.arange(0, block)
    squares = tl.zeros([block], tl.float64)
    sums = tl.zeros([block], tl.float64)
    largest = tl.zeros([block], tl.int64)
    bad = tl.zeros([block], tl.int32)
    for start in range(0, length, block):
        entry = tl.load(source + start + lane, mask=start + lane < length, other=0.0)
        if kind != tl.float64:
            entry = entry.to(tl.float32)
        number = entry.to(tl.float64)
        squares += number * number
        sums += number
        # Without their sign, the bits of floats are in the order of the numbers, infinity
        # follows the largest and NaN follows infinity: whole numbers lose no NaN in a maximum.
        bits = number.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
        largest = tl.maximum(largest, bits)
        bad += (bits >= 0x7FF0000000000000).to(tl.int32)
    target = partials + place
    tl.store(target, tl.sum(squares, axis=0))
    tl.store(target + total, tl.sum(sums, axis=0))
    tl.store(target + 2 * total, tl.max(largest, axis=0).to(tl.float64, bitcast=True))
    tl.store(target + 3 * total, tl.sum(bad, axis=0).to(tl.float64))


def _reduce_tensors(  # noqa: PLR0917 - Triton's  # pragma: no cover - runs on the device
    partials: tl.tensor,
    spans: tl.tensor,
    results: tl.tensor,
    total: tl.tensor,
    tensors: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Add up the chunks of one tensor and write its column of ``(4, tensors)``."""
    tensor = tl.program_id(0)
    first = tl.load(spans + 2 * tensor)
    last = tl.load(spans + 2 * tensor + 1)
    lane = tl.arange(0, block)
    squares = tl.zeros([block], tl.float64)
    sums = tl.zeros([block], tl.float64)
    largest = tl.zeros([block], tl.int64)
    bad = tl.zeros([block], tl.float64)
    for start in range(first, last, block):
        is_ours = start + lane < last
        source = partials + start + lane
        squares += tl.load(source, mask=is_ours, other=0.0)
        sums += tl.load(source + total, mask=is_ours, other=0.0)
        magnitude = tl.load(source + 2 * total, mask=is_ours, other=0.0)
        largest = tl.maximum(largest, magnitude.to(tl.int64, bitcast=True))
        bad += tl.load(source + 3 * total, mask=is_ours, other=0.0)
    target = results + tensor
    tl.store(target, tl.sum(squares, axis=0))
    tl.store(target + tensors, tl.sum(sums, axis=0))
    tl.store(target + 2 * tensors, tl.max(largest, axis=0).to(tl.float64, bitcast=True))
    tl.store(target + 3 * tensors, tl.sum(bad, axis=0))
