"""Which functions are activations, and what is to be looked at in their output.

In: a function of torch, and what it returned. Out: its name, and numbers on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gradguard import schema
from lightning_gradguard.devices import widest_dtype

__all__ = ["NAMES", "look_at"]

NAMES: Final[dict[Callable[..., object], str]] = {
    **dict.fromkeys((torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu), "relu"),
    F.relu6: "relu6",
    F.hardswish: "hardswish",
    F.leaky_relu: "leaky_relu",
    F.rrelu: "rrelu",
    **dict.fromkeys((torch.prelu, Tensor.prelu), "prelu"),
    F.elu: "elu",
    **dict.fromkeys((torch.selu, F.selu), "selu"),
    **dict.fromkeys((torch.celu, F.celu), "celu"),
    F.gelu: "gelu",
    F.silu: "silu",
    F.mish: "mish",
    F.softplus: "softplus",
    **dict.fromkeys(
        (torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, F.sigmoid), "sigmoid"
    ),
    **dict.fromkeys((torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, F.tanh), "tanh"),
    F.hardtanh: "hardtanh",
    F.hardsigmoid: "hardsigmoid",
    **dict.fromkeys((torch.softmax, Tensor.softmax, F.softmax), "softmax"),
}
"""Activation functions that are told from others, by what a model may call."""

_CAN_BE_ZERO: Final = {"relu", "relu6", "hardswish"}
"""Whose gradient is exactly zero where their output is."""

_ENDS: Final = {
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hardtanh": (-1.0, 1.0),
}
_NEAR: Final = 0.02
_MOST_SAMPLED: Final = 1 << 16


def look_at(name: str, output: Tensor, units: int) -> dict[str, Tensor]:
    """Return what is told of an output.

    Args:
        name: One of `NAMES`' values, or of a gate: ``sigmoid`` or ``tanh``.
        output: Any shape.
        units: The dimension along which the units lie.

    Returns:
        ``numbers`` (mean, standard deviation, share of zeros), ``histogram``
        ``(HISTOGRAM_BINS,)``, and where they apply ``active`` and ``saturated``, ``(units,)``.

    Cost:
        Two reads of the output, no wait for a device.
    """
    output = output.detach()
    found = _numbers(output)
    rows = output.movedim(units, 0).flatten(1) if output.dim() > 1 else output.unsqueeze(1)
    if name in _CAN_BE_ZERO:
        found["active"] = rows.ne(0).any(dim=1)
    if name in _ENDS:
        low, high = _ENDS[name]
        near = (rows <= low + _NEAR) | (rows >= high - _NEAR)
        found["saturated"] = near.to(torch.float32).mean(dim=1)
    if name == "softmax":
        # A row is a choice; one that leaves no doubt passes next to no gradient.
        found["saturated"] = (rows >= 1.0 - _NEAR).any(dim=0).to(torch.float32).mean().reshape(1)
    return found


def _numbers(output: Tensor) -> dict[str, Tensor]:
    flat = output.reshape(-1)
    sample = flat[:: max(1, flat.numel() // _MOST_SAMPLED)].to(widest_dtype(flat.device))
    std, mean = torch.std_mean(sample, correction=0)
    histogram = _histogram(sample)
    return {
        "numbers": torch.stack([mean, std, histogram[0] / sample.numel()]),
        "histogram": histogram,
    }


def _histogram(sample: Tensor) -> Tensor:
    """Count entries by magnitude, as `schema` lays the columns out."""
    # In place: for hundreds of small layers, the number of operations is what takes time.
    columns = torch.frexp(sample).exponent.to(sample.dtype)
    columns += schema.HISTOGRAM_FIRST - schema.HISTOGRAM_LOW - 1
    columns.clamp_(schema.HISTOGRAM_FIRST - 1, schema.HISTOGRAM_LAST + 1)
    columns.masked_fill_(sample == 0, 0.0)
    columns.masked_fill_(~torch.isfinite(sample), schema.HISTOGRAM_BINS - 1.0)
    bins = schema.HISTOGRAM_BINS
    return torch.histc(columns, bins=bins, min=-0.5, max=bins - 0.5)
