"""One step on the device: its gradients before the update, and what the update did.

In: parameters with gradients. Out: sums per tensor, as tensors on the device, and the layout that
says which column is whose. Nothing is written and nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from lightning_gradguard import measure
from lightning_gradguard.assemble import Layout, StepContext
from lightning_gradguard.errors import GradGuardError, ShardedGradientError
from lightning_gradguard.scope import WatchedTensor

__all__ = ["Snapshot", "gradient_values", "measure_update", "refuse_unsupported", "take_snapshot"]


@dataclass(eq=False)
class Snapshot:
    """A step between its gradients and its update.

    Attributes:
        context: Where in training it is.
        layout: Which column of the sums belongs to which layer.
        parameters: The parameters measured, one per column.
        sums: By name, ``(tensors,)`` each, float64, on the device.
        gradient_sample: Sampled entries of all gradients, one after another.
        parameter_sample: Sampled entries of all parameters before the update.
    """

    context: StepContext
    layout: Layout
    parameters: list[nn.Parameter]
    sums: dict[str, Tensor]
    gradient_sample: Tensor
    parameter_sample: Tensor


def gradient_values(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Return the stored gradient values of each parameter that has any."""
    return [measure.flat_values(p.grad) for p in parameters if p.grad is not None]


def take_snapshot(
    all_tensors: Sequence[WatchedTensor],
    tensors: Sequence[WatchedTensor],
    context: StepContext,
    gradient_scale: Tensor | None,
) -> Snapshot:
    """Measure gradients that are complete but not used yet.

    Args:
        all_tensors: Those of the optimizer, in depth order; they decide the rows.
        tensors: Those among them that have a gradient.
        context: Where in training this is.
        gradient_scale: What the gradients are still multiplied by, shape ``()``.
    """
    parameters = [tensor.parameter for tensor in tensors]
    values = gradient_values(parameters)
    gradient_sample = measure.sample(values)
    rows = measure.measure(values, gradient_sample)
    sums = dict(zip(measure.GRADIENT_STATISTICS, rows.unbind(), strict=True))
    if gradient_scale is not None:
        sums["squares"] = sums["squares"] / gradient_scale.to(sums["squares"].dtype).square()
        sums["abs_max"] = sums["abs_max"] / gradient_scale
        gradient_sample = gradient_sample / gradient_scale
    weights = [measure.flat_values(parameter) for parameter in parameters]
    parameter_sample = measure.sample(weights)
    sums["param_squares"] = measure.segment_squares(parameter_sample, weights)
    layout = _layout(all_tensors, tensors, values)
    return Snapshot(context, layout, parameters, sums, gradient_sample, parameter_sample)


def measure_update(step: Snapshot) -> dict[str, Tensor]:
    """Measure what changed since the snapshot: parameters, and gradients by clipping."""
    weights = [measure.flat_values(parameter) for parameter in step.parameters]
    change = measure.sample(weights) - step.parameter_sample
    sums = {"update_squares": measure.segment_squares(change, weights)}
    if all(parameter.grad is not None for parameter in step.parameters):
        values = gradient_values(step.parameters)
        after = measure.sample(values)
        sums["squares_at_update"] = measure.sum_of_squares(values, after)
        if after.shape == step.gradient_sample.shape:
            sums["clipped"] = measure.segment_changes(step.gradient_sample, after, values)
    return sums


def _layout(
    all_tensors: Sequence[WatchedTensor],
    tensors: Sequence[WatchedTensor],
    values: Sequence[Tensor],
) -> Layout:
    layers = tuple(dict.fromkeys(tensor.layer for tensor in all_tensors))
    place = {layer: index for index, layer in enumerate(layers)}
    return Layout(
        layers=layers,
        row=np.array([place[tensor.layer] for tensor in tensors], dtype=np.intp),
        size=np.array([_real_size(tensor.parameter) for tensor in tensors], dtype=np.float64),
        stored=np.array([value.numel() for value in values], dtype=np.float64),
        is_weight=np.array([_is_weight(tensor.parameter) for tensor in tensors]),
    )


def _is_weight(parameter: nn.Parameter) -> bool:
    """Whether a parameter mixes units: a scale per channel of shape (C, 1, 1) does not."""
    return parameter.dim() == 2 or sum(size > 1 for size in parameter.shape) >= 2


def _real_size(parameter: nn.Parameter) -> int:
    return parameter.numel() * (2 if parameter.is_complex() else 1)


def refuse_unsupported(tensors: Sequence[WatchedTensor]) -> None:
    """Raise for what would be measured wrongly.

    Raises:
        ShardedGradientError: A parameter is split over ranks.
        GradGuardError: The parameters are on several devices.
    """
    sharded = [tensor.name for tensor in tensors if hasattr(tensor.parameter, "placements")]
    if sharded:
        msg = (
            f"Gradients must be whole on each rank, got the sharded parameter {sharded[0]!r}. "
            "Use DDP or a single device: numbers of one shard would be wrong."
        )
        raise ShardedGradientError(msg)
    devices = {tensor.parameter.device for tensor in tensors}
    if len(devices) > 1:
        msg = (
            "The parameters of one optimizer must be on one device, got "
            f"{', '.join(sorted(map(str, devices)))}. Choose the layers of one with `include`."
        )
        raise GradGuardError(msg)
