"""One optimizer step, as numbers on the host.

In: the sums that `measure` took on the device, one column per tensor. Out: `Frame`, one row
per layer. This file needs neither torch nor Lightning, and never changes anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from lightning_gradguard.activation import Activation
from lightning_gradguard.histogram import overflow_share, underflow_share
from lightning_gradguard.roles import Role

__all__ = ["Frame", "Mask", "Vector"]

Vector: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_EMPTY: Final[Mapping[str, Vector]] = {}
_NO_NUMBERS: Final[Mapping[str, float]] = {}
_NO_MASKS: Final[Mapping[str, Mask]] = {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame:
    """What one optimizer step looked like.

    Vectors are float64 with one entry per layer, in depth order: the layer called first comes
    first. What was not measured is NaN or None, never 0.

    Attributes:
        step: Optimizer steps of this optimizer that were complete when the gradients were
            read; ``0`` for the first.
        epoch: Epoch, from 0.
        batch_idx: Batch within the epoch, from 0.
        optimizer_index: Position of the optimizer, from 0.
        loss: Sum of what went into ``backward`` since the last look at any optimizer, unscaled:
            under automatic optimisation the mean over accumulated batches.
        learning_rates: One per parameter group.
        accumulated_batches: Batches whose gradients were added up before the step.
        window_correction: What gradients and loss are multiplied by so that they are the mean
            over those batches: more than 1 in the short last window of an epoch, where Lightning
            divides by a full one. ``global_grad_norm_at_update`` is as the optimizer saw it.
        world_size: Ranks over which gradients were averaged.
        has_scaler: Whether a gradient scaler may refuse the step.
        layers: Names of the layers.
        grad_norm: L2 norm of the gradient, before any clipping; exact.
        grad_rms: Root mean square of the gradient's entries; exact.
        grad_mean: Mean of the gradient's entries; exact.
        grad_std: Standard deviation of the gradient's entries; exact.
        grad_abs_max: Largest magnitude among the gradient's entries; exact.
        zero_fraction: Share of entries that are exactly zero, in ``[0, 1]``; sampled.
        num_nonfinite: Number of NaN and infinite entries; exact.
        param_norm: L2 norm of the parameters before the update; sampled.
        update_norm: L2 norm of the change that the update made; sampled.
        weight_grad_norm: ``grad_norm`` of the weight matrices alone (tensors of two dimensions,
            or with two dimensions larger than one); NaN for a layer without any, such as a norm
            layer.
        weight_param_norm: ``param_norm`` of the weight matrices alone; sampled.
        weight_update_norm: ``update_norm`` of the weight matrices alone; sampled.
        is_sampled: Whether numbers marked as sampled come from a part of the layer's entries; where
            False, they are exact.
        global_grad_norm: L2 norm of all gradients as one vector, before any clipping.
        global_grad_norm_at_update: The same when the optimizer used them, after clipping.
        first_batch_grad_norm: The same after the first of several accumulated batches, as if it
            were the only one; None where losses are divided by one batch only.
        clipped_fraction: Share of entries that clipping changed, in ``[0, 1]``; sampled.
        guard_clip_coefficient: What the guard's own clipping multiplied the global norm by, before
            the trainer's; None where no guard clips.
        lr_factor: What a guard multiplied the learning rates by for this step, the smallest of
            all groups.
        stepped: Whether the optimizer really stepped; a gradient scaler may have refused.
        log2_histogram: Sampled entries by magnitude, shape ``(layers, HISTOGRAM_BINS)``, scaled
            up to the size of the layer; None on steps for which it was not asked.
        time_profiles: For recurrent layers on sampled steps, the L2 norm of the gradient of
            the layer's input at each time step; first time step first.
        hidden_profiles: For recurrent layers on steps that were looked inside, by layer and run
            such as ``encoder/l0``, ``(3, borders)``: time steps, the L2 norm of the gradient with
            respect to the hidden state there, and the same for the loss of the last eighth of the
            sequence alone, NaN where that has no meaning.
        output_grad_norms: For layers with weight matrices on steps that were looked inside, the L2
            norm of the gradient with respect to what the layer put out, over the batch.
        activations: On steps that were looked inside, what activation functions put out, in the
            order in which they were called.
        roles: What each layer is, one of `roles.Role`; empty when that is not known.
        batch_is_finite: Whether all numbers of the batches were finite; None when not looked at.
        silent_units: For linear and convolutional layers on sampled steps, which of the units
            had a gradient of exactly zero in all their incoming weights; exact.
    """

    step: int
    layers: tuple[str, ...]
    grad_norm: Vector
    grad_rms: Vector
    grad_mean: Vector
    grad_std: Vector
    grad_abs_max: Vector
    zero_fraction: Vector
    num_nonfinite: Vector
    param_norm: Vector
    update_norm: Vector
    weight_grad_norm: Vector
    weight_param_norm: Vector
    weight_update_norm: Vector
    is_sampled: Mask
    global_grad_norm: float
    global_grad_norm_at_update: float | None = None
    first_batch_grad_norm: float | None = None
    clipped_fraction: float | None = None
    loss: float | None = None
    learning_rates: tuple[float, ...] = ()
    epoch: int = 0
    batch_idx: int = 0
    optimizer_index: int = 0
    accumulated_batches: int = 1
    window_correction: float = 1.0
    world_size: int = 1
    has_scaler: bool = False
    guard_clip_coefficient: float | None = None
    lr_factor: float = 1.0
    stepped: bool = True
    log2_histogram: Vector | None = None
    time_profiles: Mapping[str, Vector] = field(default_factory=lambda: _EMPTY)
    hidden_profiles: Mapping[str, Vector] = field(default_factory=lambda: _EMPTY)
    output_grad_norms: Mapping[str, float] = field(default_factory=lambda: _NO_NUMBERS)
    activations: tuple[Activation, ...] = ()
    roles: tuple[Role, ...] = ()
    batch_is_finite: bool | None = None
    silent_units: Mapping[str, Mask] = field(default_factory=lambda: _NO_MASKS)

    @cached_property
    def update_ratio(self) -> Vector:
        """Size of the update against the size of the parameters, per layer.

        ``0.001`` means that the step changed the layer by a thousandth. NaN where the
        parameters are all zero or the update was not seen.
        """
        return _ratio(self.update_norm, self.param_norm)

    @cached_property
    def grad_ratio(self) -> Vector:
        """Gradient norm against parameter norm, per layer; NaN where the parameters are zero."""
        return _ratio(self.grad_norm, self.param_norm)

    @cached_property
    def weight_update_ratio(self) -> Vector:
        """`update_ratio` of the weight matrices alone."""
        return _ratio(self.weight_update_norm, self.weight_param_norm)

    @cached_property
    def weight_grad_ratio(self) -> Vector:
        """Gradient norm against parameter norm, of the weight matrices alone."""
        return _ratio(self.weight_grad_norm, self.weight_param_norm)

    @property
    def clip_coefficient(self) -> float | None:
        """What clipping multiplied the global norm by, in ``[0, 1]``; 1 is no clipping.

        None when the norm at the update was not seen or either norm is not finite.
        """
        after = self.global_grad_norm_at_update
        before = self.global_grad_norm / self.window_correction
        if after is None or not (math.isfinite(before) and math.isfinite(after)):
            return None
        return min(1.0, after / before) if before > 0.0 else 1.0

    @property
    def float16_underflow(self) -> Vector | None:
        """Share of each layer's non-zero entries that float16 would make zero, in ``[0, 1]``."""
        counts = self.log2_histogram
        return None if counts is None else underflow_share(counts, "float16")

    @property
    def float16_overflow(self) -> Vector | None:
        """Share of each layer's non-zero entries that float16 would make infinite."""
        counts = self.log2_histogram
        return None if counts is None else overflow_share(counts, "float16")

    @property
    def bfloat16_underflow(self) -> Vector | None:
        """Share of each layer's non-zero entries that bfloat16 would make zero."""
        counts = self.log2_histogram
        return None if counts is None else underflow_share(counts, "bfloat16")

    @property
    def bfloat16_overflow(self) -> Vector | None:
        """Share of each layer's non-zero entries that bfloat16 would make infinite."""
        counts = self.log2_histogram
        return None if counts is None else overflow_share(counts, "bfloat16")

    @cached_property
    def has_nonfinite(self) -> bool:
        """Whether any gradient or the loss is NaN or infinite."""
        if self.loss is not None and not math.isfinite(self.loss):
            return True
        return bool(np.nansum(self.num_nonfinite) > 0)


def _ratio(numerator: Vector, denominator: Vector) -> Vector:
    """Divide, with NaN where the denominator is zero or missing."""
    safe = np.where(denominator > 0.0, denominator, np.nan)
    with np.errstate(invalid="ignore"):  # infinity over infinity is nothing to warn of
        return numerator / safe
