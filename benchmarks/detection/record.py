"""What the published rules need to know of one training, as arrays.

In: numbers, from `signals.Signals` or made by hand. Out: a `Record`, which can be pickled and knows
no torch. A row is one step of one optimizer. In each array of rows NaN means "not there": a
parameter without a gradient, a module that was not called. A number that would be NaN or infinite
because some entry is, is infinite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Outputs", "Parameters", "Record"]

Array = NDArray[np.float32]
"""One number per row and parameter, or per row and module."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Gradients before clipping, and weights around the update.

    Attributes:
        names: As the model calls them, in its order; the columns of all arrays.
        sizes: Entries of each.
        is_kernel: Whether it has two dimensions or more.
        grad_norm: L2 norm.
        grad_mean: Mean absolute entry.
        grad_zeros: Share of entries that are exactly zero.
        grad_spread: 95th less 5th percentile; in the first ten steps only.
        weight_mean: Mean absolute entry before the update.
        weight_norm: L2 norm after the update.
        weight_small: Share of entries below 1e-5 after the update.
        update_mean: Mean absolute change.
        update_norm: L2 norm of the change.
        unchanged: 1 where ``numpy.allclose`` finds no change, else 0.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    is_kernel: NDArray[np.bool_]
    grad_norm: Array
    grad_mean: Array
    grad_zeros: Array
    grad_spread: Array
    weight_mean: Array
    weight_norm: Array
    weight_small: Array
    update_mean: Array
    update_norm: Array
    unchanged: Array


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What came out of each leaf module that has parameters or is an activation.

    Attributes:
        names: As the model calls them, in its order; the columns of all arrays.
        families: ``"relu"``, ``"tanh"``, ``"sigmoid"``, ``"softmax"``, another ``"activation"``,
            or nothing.
        is_trained: Whether it has trainable parameters.
        grad_norm: L2 norm of the gradient with respect to the output.
        mean: Mean of the output.
        std: Standard deviation of an activation's output.
        near_zero: Share of entries closer to zero than 1e-6.
        near_one: Share of entries farther from zero than 0.95.
        dead_units: Share of the units of a ReLU that are active in less than 1 % of the batch.
        idle_units: Share of an activation's units of which less than 5 % of the outputs reach 1e-5
            since the last step whose number is a multiple of ten.
        flat_units: Share of the units of a tanh or sigmoid of which less than 1 % of the inputs
            lie where the derivative is above 1e-7.
        saturated_units: Share of the units of a tanh or sigmoid whose mean distance from the
            middle of the range, since then, is above 0.85 of the largest.
        input_variance: Variance of an activation's input; in the first ten steps only.
    """

    names: tuple[str, ...]
    families: tuple[str, ...]
    is_trained: NDArray[np.bool_]
    grad_norm: Array
    mean: Array
    std: Array
    near_zero: Array
    near_one: Array
    dead_units: Array
    idle_units: Array
    flat_units: Array
    saturated_units: Array
    input_variance: Array

    def of(self, *families: str) -> NDArray[np.bool_]:
        """Return which modules are of one of these families."""
        return np.array([family in families for family in self.families], dtype=bool)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One training.

    Attributes:
        steps: Of each row.
        losses: Of each row.
        parameters: Their gradients and updates.
        outputs: Of the leaf modules.
        scores: Held-out score at the end of each epoch, larger is better.
        epoch_steps: Steps that are called an epoch.
    """

    steps: NDArray[np.int64]
    losses: NDArray[np.float64]
    parameters: Parameters
    outputs: Outputs
    scores: NDArray[np.float64]
    epoch_steps: int = 25

    @property
    def loss_by_step(self) -> NDArray[np.float64]:
        """The losses of all optimizers of each step, added up as a logger would show them."""
        losses = np.zeros(int(self.steps[-1]) + 1 if len(self.steps) else 0)
        np.add.at(losses, self.steps, self.losses)
        return losses

    def by_step(self, rows: Array) -> Array:
        """Keep one row per step: in each column, the last number that was there."""
        merged = np.full((int(self.steps[-1]) + 1, rows.shape[1]), np.nan, dtype=np.float32)
        for step, row in zip(self.steps, rows, strict=True):
            merged[step] = np.where(np.isnan(row), merged[step], row)
        return merged
