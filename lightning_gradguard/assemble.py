"""Sums per tensor become numbers per layer.

In: the arrays that arrived from the device, one column per tensor. Out: a `Frame`, one row per
layer. Plain numpy: sums add up, maxima compete, and only then roots and ratios are taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_gradguard.frame import Frame, Vector

__all__ = ["Layout", "StepContext", "assemble"]


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What the trainer knows about a step.

    Attributes:
        step: Optimizer steps of this optimizer that were complete before it.
        epoch: Epoch, from 0.
        batch_idx: Batch within the epoch, from 0.
        optimizer_index: Position of the optimizer, from 0.
        learning_rates: One per parameter group.
    """

    step: int
    epoch: int = 0
    batch_idx: int = 0
    optimizer_index: int = 0
    learning_rates: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Layout:
    """Which column of the arrays belongs to which layer.

    Attributes:
        layers: Names of all layers, in depth order.
        row: For each column, the index of its layer.
        size: For each column, the number of entries of the parameter.
        stored: For each column, the number of entries its gradient stores; fewer than
            ``size`` when it is sparse.
        is_weight: For each column, whether the parameter is a weight matrix or kernel.
    """

    layers: tuple[str, ...]
    row: npt.NDArray[np.intp]
    size: Vector
    stored: Vector
    is_weight: npt.NDArray[np.bool_]


def assemble(
    layout: Layout, sums: Mapping[str, Vector], context: StepContext, *, stepped: bool
) -> Frame:
    """Make the frame of one step.

    Args:
        layout: What the columns are.
        sums: ``squares``, ``abs_max``, ``zeros``, ``nonfinite``, ``param_squares``, each
            ``(tensors,)``; and, where measured, ``update_squares``, ``squares_at_update``,
            ``clipped``, ``histogram`` ``(tensors, bins)``, ``loss`` ``()`` and, per recurrent
            layer, ``time/<layer>`` ``(time,)``.
        context: Where in training the step was.
        stepped: Whether the optimizer really stepped.
    """
    missing = np.full(layout.row.shape, np.nan)
    update = sums.get("update_squares", missing) if stepped else np.zeros(layout.row.shape)
    zeros = sums["zeros"] + (layout.size - layout.stored)
    size = _per_layer(layout, layout.size)
    squares = _per_layer(layout, sums["squares"])
    weight = layout.is_weight
    histogram = sums.get("histogram")
    at_update, clipped = sums.get("squares_at_update"), sums.get("clipped")
    loss = sums.get("loss")
    return Frame(
        step=context.step,
        epoch=context.epoch,
        batch_idx=context.batch_idx,
        optimizer_index=context.optimizer_index,
        learning_rates=context.learning_rates,
        loss=None if loss is None else float(loss),
        layers=layout.layers,
        grad_norm=np.sqrt(squares),
        grad_rms=np.sqrt(_share(squares, size)),
        grad_abs_max=_largest_per_layer(layout, sums["abs_max"]),
        zero_fraction=_share(_per_layer(layout, zeros), size),
        num_nonfinite=_per_layer(layout, sums["nonfinite"]),
        param_norm=np.sqrt(_per_layer(layout, sums["param_squares"])),
        update_norm=np.sqrt(_per_layer(layout, update)),
        weight_grad_norm=np.sqrt(_per_layer(layout, sums["squares"], only=weight)),
        weight_param_norm=np.sqrt(_per_layer(layout, sums["param_squares"], only=weight)),
        weight_update_norm=np.sqrt(_per_layer(layout, update, only=weight)),
        global_grad_norm=float(np.sqrt(sums["squares"].sum())),
        global_grad_norm_at_update=None if at_update is None else float(np.sqrt(at_update.sum())),
        clipped_fraction=None if clipped is None else _share_of_all(clipped, layout.stored),
        stepped=stepped,
        log2_histogram=None if histogram is None else _per_layer(layout, histogram),
        time_profiles={
            name.removeprefix("time/"): np.sqrt(array)
            for name, array in sums.items()
            if name.startswith("time/")
        },
    )


def _per_layer(
    layout: Layout, columns: Vector, *, only: npt.NDArray[np.bool_] | None = None
) -> Vector:
    """Add up each layer's columns; a layer without any is NaN, never 0."""
    counted = np.ones(layout.row.shape, dtype=bool) if only is None else only
    rows = layout.row[counted]
    total = np.zeros((len(layout.layers), *columns.shape[1:]))
    np.add.at(total, rows, columns[counted])
    total[np.bincount(rows, minlength=len(layout.layers)) == 0] = np.nan
    return total


def _share(part: Vector, whole: Vector) -> Vector:
    """Divide, with NaN for a layer that has no entries at all."""
    return part / np.where(whole > 0.0, whole, np.nan)


def _share_of_all(part: Vector, whole: Vector) -> float | None:
    return float(part.sum() / whole.sum()) if whole.sum() > 0.0 else None


def _largest_per_layer(layout: Layout, columns: Vector) -> Vector:
    """Return the largest of each layer's columns; NaN wins, as it should."""
    largest = np.full(len(layout.layers), -np.inf)
    with np.errstate(invalid="ignore"):
        np.maximum.at(largest, layout.row, columns)
    return np.where(np.isneginf(largest), np.nan, largest)
