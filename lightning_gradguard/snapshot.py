"""One step where it happens: its gradients before the update, and what the update did.

In: parameters with gradients. Out: sums per tensor, where they were measured. Nothing is written
and nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_gradguard import measure
from lightning_gradguard.assemble import Layout, StepContext
from lightning_gradguard.columns import Columns
from lightning_gradguard.measure import Numbers, Plan

__all__ = ["Snapshot", "measure_update", "take_snapshot"]


@dataclass(eq=False)
class Snapshot:
    """A step between its gradients and its update.

    Attributes:
        context: Where in training it is.
        columns: What is measured.
        plan: How the gradients are read.
        layout: Which column belongs to which layer.
        sums: By name, ``(tensors,)`` each.
        squares: Sums of squares as the optimizer would use them.
        marks: Which gradients these were and how often each had been written to; None where
            that cannot be known.
        parameter_sample: Sampled entries of the parameters before the update.
        gradient_sample: Sampled entries of the gradients, kept while clipping is watched.
        may_be_refused: Whether the optimizer itself leaves out a step that is not finite, as fused
            ones under a gradient scaler do.
        touched: Whether somebody wrote to the gradients since; known after the update.
    """

    context: StepContext
    columns: Columns
    plan: Plan
    layout: Layout
    sums: dict[str, Numbers]
    squares: Numbers
    marks: list[int] | None
    parameter_sample: Tensor
    gradient_sample: Numbers | None
    may_be_refused: bool
    touched: bool = False


@np.errstate(all="ignore")
def take_snapshot(
    columns: Columns,
    gradients: Sequence[Tensor],
    context: StepContext,
    *,
    scale: Tensor | None = None,
    histogram: bool = False,
    watch_clipping: bool = True,
) -> Snapshot:
    """Measure gradients that are complete but not used yet.

    Args:
        columns: What is measured.
        gradients: One per column.
        context: Where in training this is.
        scale: What the gradients are still multiplied by, shape ``()``.
        histogram: Whether to count magnitudes, too.
        watch_clipping: Whether to keep a sample, to find out how many entries are clipped.
    """
    backend = columns.backend
    values, plan, layout = columns.read(gradients)
    numbers = backend.wide(measure.take_sample(plan, values))
    sums = measure.gradient_sums(backend, plan, values, numbers)
    if scale is not None:
        factor = backend.wide(scale.detach())
        sums, numbers = _divided(sums, factor), numbers / factor
    squares = sums["squares"]
    if (correction := context.window_correction) != 1.0:
        sums = _divided(sums, 1.0 / correction)
    if histogram:
        counts = backend.histogram(plan, numbers * correction)
        sums["histogram"] = backend.weigh(plan, counts)
    sample = columns.sample_weights()
    sums["param_squares"] = measure.sampled_squares(backend, columns.plan, backend.wide(sample))
    kept = numbers if watch_clipping else None
    return Snapshot(
        context,
        columns,
        plan,
        layout,
        sums,
        squares,
        _marks(gradients),
        sample,
        kept,
        may_be_refused=scale is not None,
    )


@np.errstate(all="ignore")
def measure_update(step: Snapshot) -> dict[str, Numbers]:
    """Measure what changed since the snapshot: parameters, and gradients by clipping."""
    backend, plan = step.columns.backend, step.columns.plan
    before, after = step.parameter_sample, step.columns.sample_weights()
    change = backend.wide(after) - backend.wide(before)
    sums = {"update_squares": measure.sampled_squares(backend, plan, change)}
    gradients = [parameter.grad for parameter in step.columns.parameters]
    known = [gradient for gradient in gradients if gradient is not None]
    if len(known) < len(gradients):
        return sums  # set to None already, so nobody can say what was used
    marks = _marks(known)
    step.touched = marks is None or marks != step.marks
    if step.touched or step.gradient_sample is not None:
        return sums | _clipping(step, known)
    return sums | {"squares_at_update": step.squares, "clipped": backend.zeros(step.squares)}


def _clipping(step: Snapshot, gradients: Sequence[Tensor]) -> dict[str, Numbers]:
    """Measure the gradients that were used, against those before."""
    backend, plan = step.columns.backend, step.plan
    values, now, _ = step.columns.read(gradients)
    if now is not plan and now.sizes != plan.sizes:
        return {}  # a sparse gradient that was replaced by another one
    after = backend.wide(measure.take_sample(plan, values))
    sums = {"squares_at_update": measure.exact_squares(backend, plan, values, after)}
    if step.gradient_sample is not None:
        before = step.gradient_sample
        sums["clipped"] = measure.changed_entries(backend, plan, before, after)
    return sums


def _marks(gradients: Sequence[Tensor]) -> list[int] | None:
    """Return which memory these are in and how often each was written to, as autograd counts."""
    try:
        writes = [gradient._version for gradient in gradients]  # noqa: SLF001 - torch has no other way to ask
    except RuntimeError:
        return None  # made in inference mode, where nobody counts
    places = [g.data_ptr() if g.layout is torch.strided else id(g) for g in gradients]
    return [*places, *writes]


def _divided(sums: dict[str, Numbers], factor: Numbers) -> dict[str, Numbers]:
    """Return the sums of gradients that are smaller by a factor."""
    powers = {"squares": 2, "total": 1, "abs_max": 1}
    return {name: row / factor ** powers.get(name, 0) for name, row in sums.items()}
