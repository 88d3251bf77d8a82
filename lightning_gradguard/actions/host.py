"""Copies of tensors in host memory, and how to tell that one is still up to date.

In: tensors, alone or in states of anybody's making. Out: the same on the host, and their size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradguard import devices
from lightning_gradguard.writes import num_writes

__all__ = ["Mark", "marks_of_frozen", "num_bytes", "to_host", "wait"]

Mark = tuple[int, int, int]
"""Where a tensor is, how often it was written to, and the sum of its bits."""


def to_host(value: Any) -> Any:  # noqa: ANN401 - optimizers keep what they like
    """Return a copy on the host of everything in it; from a device it arrives later, see `wait`."""
    if isinstance(value, Tensor):
        value = value.detach()
        if devices.is_host(value.device):
            return value.clone()
        pinned = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
        return pinned.copy_(value, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_host(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_host(item) for item in value)
    return copy.deepcopy(value)


def num_bytes(value: Any, seen: set[int] | None = None) -> int:  # noqa: ANN401 - see above
    """Return the memory of all tensors, each counted once."""
    seen = set() if seen is None else seen
    if isinstance(value, Tensor):
        is_known = id(value) in seen
        seen.add(id(value))
        return 0 if is_known else value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value
    return sum(num_bytes(p, seen) for p in parts) if isinstance(value, (dict, list, tuple)) else 0


def wait() -> None:
    """Let copies from a device arrive."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def marks_of_frozen(tensors: Mapping[str, Tensor]) -> dict[str, Mark]:
    """Mark frozen parameters: where they are, how often they were written to, and their bits.

    The bits, since a teacher that follows the weights is mostly written to through ``.data``,
    which autograd does not count. What cannot be marked is left out.
    """
    places: dict[str, tuple[int, int]] = {}
    sums: list[Tensor] = []
    for name, tensor in tensors.items():
        if not isinstance(tensor, nn.Parameter) or tensor.requires_grad:
            continue
        try:
            place = tensor.data_ptr(), num_writes(tensor)
            bits = _sum_of_bits(tensor)
        except (RuntimeError, NotImplementedError):
            continue  # some have no memory
        places[name] = place
        sums.append(bits if not sums else bits.to(sums[0].device))
    found = torch.stack(sums).tolist() if sums else []
    return {name: (*place, bits) for (name, place), bits in zip(places.items(), found, strict=True)}


def _sum_of_bits(tensor: Tensor) -> Tensor:
    """Return a sum of the memory that a tensor is in, shape ``()``.

    As words of eight bytes, in which torch sums without a copy: one of smaller numbers would take
    several times the tensor.
    """
    whole = _bytes_of(tensor)
    first = min(-whole.storage_offset() % 8, whole.numel())
    last = first + (whole.numel() - first) // 8 * 8
    ends = whole[:first].sum(dtype=torch.int64) + whole[last:].sum(dtype=torch.int64)
    return ends + whole[first:last].view(torch.int64).sum()


def _bytes_of(tensor: Tensor) -> Tensor:
    storage = tensor.untyped_storage()
    if storage.nbytes() != tensor.numel() * tensor.element_size():
        return tensor.detach().view(-1).view(torch.uint8)  # a part of one, if without gaps
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
