"""All entries of large tensors in two launches, whatever their number.

In: tensors on one CUDA device. Out: their sums there. The first launch reads each chunk of
32,768 entries once, the second adds up the chunks of each tensor; nothing of the tensors' size is
made, nothing is added in an order that changes, and nothing waits. The launched code is in
`programs`, for Triton; where that does not work, `foreach` does it all. Off unless the environment
has ``GRADGUARD_KERNEL=1``: it was compiled and interpreted, but not yet run on a GPU.
"""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lightning_gradguard.measure import programs
from lightning_gradguard.measure.values import as_vector

__all__ = ["is_usable", "read"]

_log: Final = logging.getLogger(__name__)

_CHUNK: Final = 1 << 15
_BLOCK: Final = 1024
"""Entries that one program reads in all, and at a time."""

_TYPES: Final = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float64: "float64",
}
"""What can be read, and Triton's names for it."""

Reader: TypeAlias = Callable[[Sequence[Tensor]], Tensor]


class _Work(NamedTuple):
    """How tensors of known sizes are cut.

    Attributes:
        chunks: Tensor, first entry and number of entries of each chunk: ``(chunks, 3)``. Those
            of one dtype lie together, and so do those of one tensor.
        spans: First chunk of each tensor, and the one after its last: ``(tensors, 2)``.
        launches: Dtype, first chunk and number of chunks.
    """

    chunks: Tensor
    spans: Tensor
    launches: tuple[tuple[torch.dtype, int, int], ...]


@functools.lru_cache(maxsize=16)
def _work(sizes: tuple[int, ...], dtypes: tuple[torch.dtype, ...], device: torch.device) -> _Work:
    """Cut tensors into chunks, once: the tables stay on the device."""
    present = [dtype for dtype in _TYPES if dtype in dtypes]
    order = np.array(sorted(range(len(sizes)), key=lambda i: present.index(dtypes[i])))
    entries = np.array(sizes, dtype=np.int64)
    counts = -(-entries // _CHUNK)
    last = np.cumsum(counts[order])
    spans = np.empty((len(sizes), 2), dtype=np.int64)
    spans[order, 0], spans[order, 1] = last - counts[order], last
    tensor = np.repeat(order, counts[order])
    offset = (np.arange(last[-1]) - spans[tensor, 0]) * _CHUNK
    length = np.minimum(entries[tensor] - offset, _CHUNK)
    launches, first = [], 0
    for dtype in present:
        count = sum(int(counts[i]) for i, other in enumerate(dtypes) if other is dtype)
        launches.append((dtype, first, count))
        first += count
    chunks = np.stack([tensor, offset, length], axis=1).astype(np.int64, copy=False)
    return _Work(
        chunks=torch.from_numpy(chunks).to(device),
        spans=torch.from_numpy(spans).to(device),
        launches=tuple(launches),
    )


def read(values: Sequence[Tensor]) -> Tensor | None:
    """Return sum of squares, sum, largest magnitude and number of non-finite entries.

    Args:
        values: Tensors of real numbers on a device that `is_usable`.

    Returns:
        Rows of shape ``(4, tensors)``, float64, exact but for rounding; of largest magnitudes,
        NaN is the largest. None for what the kernel must not be given: it reads bare memory.

    Cost:
        No host sync. One copy of a pointer per tensor to the device, one launch per dtype and
        one more; 32 bytes per chunk.
    """
    # These names keep what had to be copied alive until it is read: later work on the same
    # stream can only begin after that.
    dense = [_dense(value) for value in values]
    pointers = [value.data_ptr() for value in dense]
    sizes = tuple([value.numel() for value in dense])
    dtypes = tuple([value.dtype for value in dense])
    device = dense[0].device
    is_strange = 0 in pointers or len({value.get_device() for value in dense}) > 1
    if is_strange or not _TYPES.keys() >= set(dtypes):
        return None  # an empty tensor has no memory; others may have none that we know of
    # torch keeps pinned memory from being used again before the copy is done.
    table = torch.tensor(
        pointers, dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda"
    ).to(device, non_blocking=True)
    # Triton launches on the current device.
    with torch.cuda.device_of(dense[0]):  # type: ignore[no-untyped-call]  # torch's own gap
        return _launch(table, _work(sizes, dtypes, device))


def _dense(value: Tensor) -> Tensor:
    """Return the same entries without gaps, in any order: what the kernel may be given."""
    if value.is_contiguous() and not value.is_neg():
        return value
    # One that is only marked as negated has other numbers in memory than it stands for.
    return as_vector(value.resolve_neg()).contiguous()


def _launch(pointers: Tensor, work: _Work) -> Tensor:
    import triton.language

    reduce_chunks, reduce_tensors = programs.compiled()
    total, tensors = len(work.chunks), len(work.spans)
    partials = torch.empty((4, total), dtype=torch.float64, device=pointers.device)
    sums = torch.empty((4, tensors), dtype=torch.float64, device=pointers.device)
    for dtype, first, count in work.launches:
        kind = getattr(triton.language, _TYPES[dtype])
        reduce_chunks[(count,)](
            pointers, work.chunks, partials, first, total, kind=kind, block=_BLOCK
        )
    reduce_tensors[(tensors,)](partials, work.spans, sums, total, tensors, block=_BLOCK)
    return sums


def is_usable(device: torch.device, *, reference: Reader) -> bool:
    """Whether the kernel runs on a device and is right there.

    Args:
        device: Where the tensors are.
        reference: Returns what `read` should, by other means.

    Cost:
        At the first question about a device, the kernels are compiled, and the one wait of the
        package happens, for a comparison of a few numbers. Nothing after that.

    Example:
        >>> from lightning_gradguard.measure import foreach
        >>> is_usable(torch.device("cpu"), reference=foreach.read)
        False
    """
    if device.type != _device_type() or not _is_wanted(device):
        return False
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return False  # a graph would keep this step's pointers
    return _proved_itself(device, reference)


def _is_wanted(device: torch.device) -> bool:
    """Whether somebody asked for the kernel: it has not been run on a GPU by its authors yet."""
    return device.type == "cpu" or os.environ.get("GRADGUARD_KERNEL") == "1"


def _device_type() -> str:
    """Return where kernels run: on the CPU if Triton was told to interpret them, for tests."""
    return "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@functools.cache
def _proved_itself(device: torch.device, reference: Reader) -> bool:
    reason = "the kernel's numbers differ from them"
    try:
        if _is_right(_examples(device), reference):
            return True
    except Exception as error:  # noqa: BLE001 - a compiler, a driver: whatever is missing
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    _log.info("gradguard reads gradients on %s by torch's own operators: %s", device, reason)
    return False


def _is_right(values: Sequence[Tensor], reference: Reader) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a compiler has to say helps nobody here
        sums = read(values)
    expected = reference(values)
    return sums is not None and torch.allclose(sums, expected, rtol=1e-9, atol=0.0, equal_nan=True)


def _examples(device: torch.device) -> list[Tensor]:
    """Return tensors of each dtype with what could go wrong, without touching random numbers."""
    values = []
    for dtype in _TYPES:
        sizes = (1, 5, 2 * _CHUNK + 3, _CHUNK, 1025)
        numbers = [
            torch.linspace(-3.0, 5.0, size, dtype=torch.float32, device="cpu") for size in sizes
        ]
        numbers[1][1], numbers[1][3] = 1e20, 1e-25
        numbers[2][2 * _CHUNK + 2] = float("nan")
        numbers[3][7], numbers[3][8] = float("inf"), float("-inf")
        whole = [number.to(dtype).to(device) for number in numbers]
        values += [*whole, whole[-1][::3]]
    return values
