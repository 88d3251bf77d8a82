"""Sums per tensor become numbers per layer.

In: the arrays that arrived from the device, one column per tensor. Out: a `Frame`, one row per
layer. Plain numpy: sums add up, maxima compete, and only then roots and ratios are taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradguard.activation import Activation
from lightning_gradguard.frame import Frame, Mask, Vector
from lightning_gradguard.roles import Role

__all__ = ["Layout", "StepContext", "assemble", "without_gradient"]


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What the trainer knows about a step.

    Attributes:
        step: Optimizer steps of this optimizer that were complete before it.
        epoch: Epoch, from 0.
        batch_idx: Batch within the epoch, from 0.
        optimizer_index: Position of the optimizer, from 0.
        learning_rates: One per parameter group.
        accumulated_batches: Batches whose gradients were added up.
        window_batches: Batches that each loss was divided by; more than were added up in the
            short last window of an epoch.
        world_size: Ranks over which gradients were averaged.
        has_scaler: Whether a gradient scaler may refuse the step.
    """

    step: int
    epoch: int = 0
    batch_idx: int = 0
    optimizer_index: int = 0
    learning_rates: tuple[float, ...] = ()
    accumulated_batches: int = 1
    window_batches: int = 1
    world_size: int = 1
    has_scaler: bool = False

    @property
    def window_correction(self) -> float:
        """What makes the gradient the mean over the batches that are really in it."""
        return self.window_batches / self.accumulated_batches


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
        is_sampled: For each column, whether a part of its entries stands for all.
        roles: What each layer is.
    """

    layers: tuple[str, ...]
    row: npt.NDArray[np.intp]
    size: Vector
    stored: Vector
    is_weight: Mask
    is_sampled: Mask
    roles: tuple[Role, ...] = ()

    def add_up(self, rows: Vector) -> Vector:
        """Add up each layer's columns; a layer without any is NaN, never 0.

        Args:
            rows: Any number of them, ``(rows, columns)``.

        Shape:
            ``(rows, layers)``.
        """
        # One count per row: three times as fast as to reduce all rows at once.
        num = len(self.layers)
        total = np.array([np.bincount(self.row, weights=r, minlength=num) for r in rows])
        total[:, self._is_empty] = np.nan
        return total

    def add_up_weights(self, rows: Vector) -> Vector:
        """Add up each layer's weight matrices; a layer without any is NaN."""
        total = self.add_up(np.where(self.is_weight, rows, 0.0))
        total[:, self._has_no_weight] = np.nan
        return total

    def largest(self, columns: Vector) -> Vector:
        """Return the largest of each layer's columns; NaN wins, as it should."""
        largest = np.full(len(self.layers), np.nan)
        with np.errstate(invalid="ignore"):
            largest[self._present] = np.maximum.reduceat(columns[self._order], self._starts)
        return largest

    @cached_property
    def size_per_layer(self) -> Vector:
        """Entries of each layer's parameters; NaN for none, so that nothing divides by zero."""
        size: Vector = self.add_up(self.size[np.newaxis])[0]
        size[size == 0.0] = np.nan
        return size

    @cached_property
    def sampled_layers(self) -> Mask:
        """Whether any column of a layer is sampled."""
        return np.isin(np.arange(len(self.layers)), self.row[self.is_sampled])

    @cached_property
    def _order(self) -> npt.NDArray[np.intp]:
        """Columns, those of the first layer first."""
        return np.argsort(self.row, kind="stable")

    @cached_property
    def _present(self) -> npt.NDArray[np.intp]:
        """Layers that have columns."""
        return np.unique(self.row)

    @cached_property
    def _starts(self) -> npt.NDArray[np.intp]:
        """Where the columns of each present layer begin, in order."""
        return np.searchsorted(self.row[self._order], self._present)

    @cached_property
    def _is_empty(self) -> Mask:
        return ~np.isin(np.arange(len(self.layers)), self.row)

    @cached_property
    def _has_no_weight(self) -> Mask:
        return ~np.isin(np.arange(len(self.layers)), self.row[self.is_weight])


def assemble(
    layout: Layout, sums: Mapping[str, Vector], context: StepContext, *, stepped: bool
) -> Frame:
    """Make the frame of one step.

    Args:
        layout: What the columns are.
        sums: ``squares``, ``total``, ``abs_max``, ``zeros``, ``nonfinite``, ``param_squares``,
            each ``(tensors,)``; and, where measured, ``update_squares``, ``squares_at_update``,
            ``clipped``, ``histogram`` ``(tensors, bins)``, ``loss`` ``()``,
            ``first_batch_squares`` ``()``, ``batch`` ``()``, ``lr_factor`` ``()``,
            ``guard_clip_coefficient`` ``()`` and, per layer, ``time/<layer>``
            ``(time,)`` and ``units/<layer>`` ``(units,)``; and what `inside.looks` saw.
        context: Where in training the step was.
        stepped: Whether the optimizer really stepped.
    """
    missing = np.full(layout.row.shape, np.nan)
    update = sums.get("update_squares", missing) if stepped else np.zeros(layout.row.shape)
    size = layout.size_per_layer
    zeros = sums["zeros"] + (layout.size - layout.stored)
    squares, total, num_zeros, num_nonfinite, param_squares, update_squares = layout.add_up(
        np.stack(
            [
                sums["squares"],
                sums["total"],
                zeros,
                sums["nonfinite"],
                sums["param_squares"],
                update,
            ]
        )
    )
    weights = np.sqrt(
        layout.add_up_weights(np.stack([sums["squares"], sums["param_squares"], update]))
    )
    with np.errstate(all="ignore"):
        mean_square, mean = squares / size, total / size
        # Float64 sums are far enough apart: `measure` sees to it where they would cancel.
        variance = np.maximum(mean_square - mean * mean, 0.0)
    at_update, clipped = _at_update(sums, context)
    histogram = sums.get("histogram")
    if histogram is not None:
        histogram = histogram.copy()
        histogram[:, 0] += layout.size - layout.stored
    guard = sums.get("guard_clip_coefficient")
    first, loss, batch = (sums.get(name) for name in ("first_batch_squares", "loss", "batch"))
    return Frame(
        step=context.step,
        epoch=context.epoch,
        batch_idx=context.batch_idx,
        optimizer_index=context.optimizer_index,
        learning_rates=context.learning_rates,
        accumulated_batches=context.accumulated_batches,
        window_correction=context.window_correction,
        world_size=context.world_size,
        has_scaler=context.has_scaler,
        loss=None if loss is None else float(loss) * context.window_correction,
        layers=layout.layers,
        grad_norm=np.sqrt(squares),
        grad_rms=np.sqrt(mean_square),
        grad_mean=mean,
        grad_std=np.sqrt(variance),
        grad_abs_max=layout.largest(sums["abs_max"]),
        zero_fraction=num_zeros / size,
        num_nonfinite=num_nonfinite,
        param_norm=np.sqrt(param_squares),
        update_norm=np.sqrt(update_squares),
        weight_grad_norm=weights[0],
        weight_param_norm=weights[1],
        weight_update_norm=weights[2],
        is_sampled=layout.sampled_layers,
        global_grad_norm=float(np.sqrt(sums["squares"].sum())),
        global_grad_norm_at_update=None if at_update is None else float(np.sqrt(at_update.sum())),
        first_batch_grad_norm=None if first is None else float(np.sqrt(first)),
        clipped_fraction=_share_of_all(clipped, layout.stored),
        lr_factor=float(sums.get("lr_factor", 1.0)),
        guard_clip_coefficient=None if guard is None else float(guard),
        stepped=stepped,
        log2_histogram=None if histogram is None else layout.add_up(histogram.T).T,
        roles=layout.roles,
        batch_is_finite=None if batch is None else bool(np.isfinite(batch)),
        time_profiles={name: np.sqrt(array) for name, array in _each(sums, "time/")},
        silent_units={name: array != 0.0 for name, array in _each(sums, "units/")},
        hidden_profiles={name: _rooted(rows) for name, rows in _each(sums, "hidden/")},
        output_grad_norms={name: float(np.sqrt(s)) for name, s in _each(sums, "out/")},
        activations=_activations(sums),
    )


def without_gradient(
    layers: tuple[str, ...], roles: tuple[Role, ...], context: StepContext, loss: float | None
) -> Frame:
    """Make the frame of a step for which no parameter had a gradient.

    Args:
        layers: All layers of the optimizer, in depth order.
        roles: What each layer is.
        context: Where in training the step was.
        loss: Of the step.
    """
    names = [field.name for field in fields(Frame) if field.type == "Vector"]
    unknown: dict[str, Any] = dict.fromkeys(names, np.full(len(layers), np.nan))
    return Frame(
        **unknown,
        step=context.step,
        epoch=context.epoch,
        batch_idx=context.batch_idx,
        optimizer_index=context.optimizer_index,
        learning_rates=context.learning_rates,
        accumulated_batches=context.accumulated_batches,
        world_size=context.world_size,
        has_scaler=context.has_scaler,
        loss=loss,
        layers=layers,
        roles=roles,
        is_sampled=np.zeros(len(layers), dtype=np.bool_),
        global_grad_norm=0.0,
    )


def _each(sums: Mapping[str, Vector], prefix: str) -> Iterator[tuple[str, Vector]]:
    """Yield what is given per layer, by the layer's name."""
    for name, array in sums.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), array


def _rooted(rows: Vector) -> Vector:
    """Return time steps and norms of time steps and squares."""
    return np.concatenate([rows[:1], np.sqrt(rows[1:])])


def _activations(sums: Mapping[str, Vector]) -> tuple[Activation, ...]:
    """Return what was seen of activation functions, see `inside.looks`."""
    found = []
    for name, numbers in _each(sums, "act/numbers/"):
        function, module, _, layer = json.loads(name)
        active, saturated = (sums.get(f"act/{what}/{name}") for what in ("active", "saturated"))
        mean, std, zeros = numbers.tolist()
        found.append(
            Activation(
                function=function,
                module=module,
                layer=layer,
                mean=mean,
                std=std,
                zero_fraction=zeros,
                log2_histogram=sums[f"act/histogram/{name}"],
                active=None if active is None else active != 0.0,
                saturated=saturated,
            )
        )
    return tuple(found)


def _at_update(
    sums: Mapping[str, Vector], context: StepContext
) -> tuple[Vector | None, Vector | None]:
    """Return squares and changed entries at the update, None where these cannot be known.

    A norm that has grown is no clipping: the optimizer itself wrote to the gradients, as torch's
    Nesterov momentum does in its fast form.
    """
    after, clipped = sums.get("squares_at_update"), sums.get("clipped")
    before = float(sums["squares"].sum()) / context.window_correction**2
    if after is not None and float(after.sum()) > before * (1.0 + 1e-6):
        return None, None
    return after, clipped


def _share_of_all(part: Vector | None, whole: Vector) -> float | None:
    if part is None or not whole.sum() > 0.0:
        return None
    return float(part.sum() / whole.sum())
