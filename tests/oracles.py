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


def statistics(numbers: Vector) -> tuple[float, float, float, float]:
    """Return sum of squares, largest magnitude, zeros and non-finite entries."""
    largest = float(np.max(np.abs(numbers))) if numbers.size else 0.0
    squares = float(np.sum(numbers.astype(np.float64) ** 2))
    return squares, largest, float(np.sum(numbers == 0)), float(np.sum(~np.isfinite(numbers)))


def log2_histogram(numbers: Vector) -> Vector:
    """Count magnitudes per octave between explicit edges, underflow first, overflow last."""
    edges = [2.0**power for power in range(HISTOGRAM_LOW, HISTOGRAM_HIGH + 1)]
    counts = np.zeros(len(edges) + 1)
    for number in np.abs(numbers[np.isfinite(numbers) & (numbers != 0)]):
        counts[int(np.searchsorted(edges, number, side="right"))] += 1
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
