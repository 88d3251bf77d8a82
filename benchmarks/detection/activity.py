"""What an activation makes of one batch, in a few numbers.

In: outputs and inputs as ``(examples, units, places)``. Out: shares of units and deviations, by the
limits that published rules have. Nothing here knows a module.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Matrix",
    "Tally",
    "bounded",
    "by_unit",
    "of_activation",
    "of_inputs",
    "stacked",
]

Matrix = NDArray[np.floating[Any]]

LIMITS: Final = {"tanh": (-9.4999, 9.4999), "sigmoid": (-23.0, 16.99999)}
"""SageMaker Debugger's limits of the input."""


class Tally:
    """How active, and how far from the middle, units were over some batches.

    Args:
        family: Of the activation; a tanh or a sigmoid has a middle.
    """

    def __init__(self, family: str) -> None:
        self._family = family
        self._total: Matrix = np.zeros((1, 0))
        self._count = 0

    def add(self, values: Matrix, size: Matrix) -> dict[str, float]:
        """Add a batch of outputs and of their absolute values; return the shares so far."""
        means = [_mean(size >= 1e-5)]
        if self._family in LIMITS:
            is_sigmoid = self._family == "sigmoid"
            means.append(_mean(np.abs(2.0 * values - 1.0) if is_sigmoid else size))
        if self._total.shape[1] != len(means[0]):
            self._total, self._count = np.zeros(1), 0  # the first batch, or the units are others
        self._total, self._count = self._total + np.stack(means), self._count + 1
        numbers = {"idle_units": float((self._total[0] / self._count < 0.05).mean())}
        if self._family in LIMITS:
            numbers["saturated_units"] = float((self._total[1] / self._count > 0.85).mean())
        return numbers


def of_activation(family: str, values: Matrix) -> dict[str, float]:
    """Return the numbers of one batch of outputs."""
    numbers = {"std": bounded(_deviation(values))}
    if family == "relu":
        numbers["dead_units"] = float((_mean(values != 0.0) < 0.01).mean())
    return numbers


def of_inputs(family: str, values: Matrix, *, is_early: bool) -> dict[str, float]:
    """Return the numbers of one batch of inputs; the variance only if it is early."""
    numbers = {"input_variance": bounded(_deviation(values) ** 2)} if is_early else {}
    if family in LIMITS:
        low, high = LIMITS[family]
        inside = _mean((values > low) & (values < high))
        numbers["flat_units"] = float((inside < 0.01).mean())
    return numbers


def by_unit(tensor: Tensor, *, first_is_channel: bool) -> Matrix:
    """Return a copy as ``(examples, units, places)``.

    Args:
        tensor: With the units in its last dimension; an image has them in its second.
        first_is_channel: Whether a sequence has them there, too.
    """
    values: Matrix = tensor.detach().to(torch.float32, copy=True).numpy()
    if values.ndim > 3 or (values.ndim == 3 and first_is_channel):
        return values.reshape(*values.shape[:2], -1)
    return values.reshape(-1, values.shape[-1] if values.ndim else 1, 1)


def stacked(calls: list[Matrix]) -> Matrix:
    """Join what a module gave in several calls."""
    if len(calls) == 1:
        return calls[0]
    if len({call.shape[1:] for call in calls}) > 1:  # of different shapes: units mean nothing
        return np.concatenate([call.reshape(-1, 1, 1) for call in calls])
    return np.concatenate(calls)


def bounded(number: float) -> float:
    """Return a number that is infinite if it would be NaN."""
    return float(number) if math.isfinite(number) else math.inf


def _mean(values: NDArray[Any]) -> Matrix:
    """Return the mean of each unit; products with ones are the fastest sums."""
    examples, units, places = values.shape
    numbers = values.astype(np.float32, copy=False)
    sums: Matrix
    if places == 1:
        sums = np.ones(examples, np.float32) @ numbers[:, :, 0]
    else:
        ones = np.ones(places, np.float32)
        sums = (numbers.reshape(-1, places) @ ones).reshape(examples, units).sum(axis=0)
    return sums / np.float32(examples * places)


def _deviation(values: Matrix) -> float:
    rest = (values - values.mean()).ravel()
    return math.sqrt(float(rest @ rest) / rest.size)
