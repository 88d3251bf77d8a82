"""Slow, obvious versions of what the package computes. None of them imports the package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

Vector = npt.NDArray[np.float64]

HISTOGRAM_LOW, HISTOGRAM_HIGH = -96, 32


def entries(tensor: Tensor) -> Vector:
    """Return all entries as float64; of a sparse tensor those that it stores, once each."""
    tensor = tensor.detach()
    if tensor.layout == torch.sparse_coo:
        rows: dict[tuple[int, ...], Vector] = {}
        for place, value in zip(tensor._indices().t().tolist(), tensor._values(), strict=True):
            rows[tuple(place)] = rows.get(tuple(place), np.float64(0.0)) + entries(value)
        return np.concatenate([np.atleast_1d(row).ravel() for row in rows.values()])
    if tensor.is_complex():
        numbers = np.asarray(tensor.resolve_conj().numpy(), dtype=np.complex128).ravel()
        return np.concatenate([numbers.real, numbers.imag])
    return np.array(tensor.double().numpy(), dtype=np.float64).ravel()


def statistics(numbers: Vector) -> dict[str, float]:
    """Return sum of squares, sum, largest magnitude, zeros and non-finite entries."""
    numbers = np.asarray(numbers, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return {
            "squares": float(np.sum(numbers**2)),
            "total": float(np.sum(numbers)),
            "abs_max": float(np.max(np.abs(numbers))) if numbers.size else 0.0,
            "zeros": float(np.sum(numbers == 0)),
            "nonfinite": float(np.sum(~np.isfinite(numbers))),
        }


def log2_histogram(numbers: Vector) -> Vector:
    """Count magnitudes between explicit edges: zeros first, what is not finite last."""
    magnitudes = np.abs(np.asarray(numbers, dtype=np.float64))
    octaves = [2.0**power for power in range(HISTOGRAM_LOW, HISTOGRAM_HIGH + 1)]
    edges = [2.0**-134, *octaves, 2.0**128]  # bfloat16 flushes below and overflows above
    finite = magnitudes[np.isfinite(magnitudes)]
    column = 1 + np.searchsorted(edges, finite[finite > 0.0], side="right")
    counts = np.bincount(column, minlength=len(edges) + 3).astype(np.float64)
    counts[0], counts[-1] = np.sum(finite == 0.0), np.sum(~np.isfinite(magnitudes))
    return counts


def weighted_moments(numbers: Sequence[float], decay: float) -> tuple[float, float]:
    """Return mean and variance in two passes, from the weight of each number."""
    shares = [min(decay, i / (i + 1)) for i in range(len(numbers))]
    weights = [(1.0 - shares[i]) * math.prod(shares[i + 1 :]) for i in range(len(numbers))]
    mean = math.fsum(w * x for w, x in zip(weights, numbers, strict=True))
    return mean, math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, numbers, strict=True))


def input_gradient(layer: nn.RNNBase, sequence: Tensor) -> Tensor:
    """Return dL/dx by autograd, where L is the sum of the last output's squares."""
    sequence = sequence.clone().requires_grad_()
    last_output(layer, layer(sequence)[0]).square().sum().backward()
    assert sequence.grad is not None
    return sequence.grad


def last_output(layer: nn.RNNBase, outputs: Tensor) -> Tensor:
    """Return the output of the last time step."""
    return outputs[:, -1] if layer.batch_first and outputs.dim() == 3 else outputs[-1]
