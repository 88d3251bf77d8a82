"""Which units of a layer get no gradient at all.

In: gradients of weight matrices and kernels. Out: one mask per layer. A unit that does not fire for
any sample of a batch leaves a row of exact zeros; looking is cheap, since nearly all rows show
something in their first few entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_gradguard import devices

__all__ = ["UnitTensor", "silent_units"]

Mask: TypeAlias = npt.NDArray[np.bool_]

_PEEK: Final = 16
"""Entries of a row that are looked at first, on the host."""


@dataclass(frozen=True)
class UnitTensor:
    """A tensor whose slices along one dimension belong to units.

    Attributes:
        layer: The layer that it belongs to.
        column: Its place among the gradients.
        dim: The dimension.
    """

    layer: str
    column: int
    dim: int | None


def silent_units(units: Sequence[UnitTensor], gradients: Sequence[Tensor]) -> dict[str, Any]:
    """Tell which units had a gradient of exactly zero.

    Args:
        units: Where to look.
        gradients: Those of all columns.

    Returns:
        For each layer a mask, ``(units,)``: an array on the host, else a tensor.

    Cost:
        On the host one look at 16 entries per unit, and at all of those where these are zero. On a
        device one read, and no wait.

    Example:
        >>> gradient = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
        >>> silent_units([UnitTensor("fc", 0, 0)], [gradient])
        {'fc': array([ True, False])}
    """
    masks: dict[str, Any] = {}
    for unit in units:
        gradient = gradients[unit.column].detach()
        if gradient.layout is not torch.strided or gradient.numel() == 0:
            continue
        if unit.dim:
            gradient = gradient.movedim(unit.dim, 0)
        if devices.is_host(gradient.device):
            masks[unit.layer] = _peek(_as_array(gradient))
        else:
            masks[unit.layer] = ~gradient.flatten(1).ne(0).any(dim=1)
    return masks


def _as_array(gradient: Tensor) -> npt.NDArray[np.generic]:
    """Return a gradient as rows; numpy knows no bfloat16."""
    if gradient.dtype is torch.bfloat16:
        gradient = gradient.to(torch.float32)
    return gradient.numpy().reshape(len(gradient), -1)


def _peek(rows: npt.NDArray[np.generic]) -> Mask:
    """Look at a few entries of each row, then at all of the rows that showed nothing."""
    alive: Mask = np.any(rows[:, :: max(1, rows.shape[1] // _PEEK)], axis=1)
    if not alive.all():
        alive[~alive] = np.any(rows[~alive], axis=1)
    return np.logical_not(alive)
