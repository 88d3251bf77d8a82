"""The few operations that a host and a device do differently.

In: a device. Out: the backend for it. `host` may look at a number before it decides what to do
next, since nothing has to be waited for; `device` never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from lightning_gradguard import devices
from lightning_gradguard.measure import device as device_backend
from lightning_gradguard.measure import host as host_backend
from lightning_gradguard.measure.plan import Plan

__all__ = ["Backend", "Numbers", "backend_for"]

Numbers: TypeAlias = Any
"""Float64 numbers where they were measured: an array of numpy on the host, else a tensor."""


class Backend(Protocol):
    """What `statistics` is written in."""

    def wide(self, sample: Tensor) -> Numbers:
        """Return a sample in float64."""
        ...

    def zeros(self, like: Numbers) -> Numbers:
        """Return zeros of the same shape."""
        ...

    def segment_sum(self, plan: Plan, numbers: Numbers) -> Numbers:
        """Add up each tensor's part of a joined sample: ``(tensors,)``."""
        ...

    def segment_max(self, plan: Plan, numbers: Numbers) -> Numbers:
        """Return the largest of each tensor's part, 0 for none; NaN wins."""
        ...

    def count_nonfinite(self, plan: Plan, numbers: Numbers, squares: Numbers) -> Numbers:
        """Count each part's non-finite numbers, given the sums of their squares."""
        ...

    def weigh(self, plan: Plan, sums: Numbers) -> Numbers:
        """Scale sums over samples up to the size of the tensors, along the first dimension."""
        ...

    def read_large(self, values: Sequence[Tensor]) -> Numbers:
        """Read all entries of large tensors.

        Returns:
            Sum of squares and sum, good to 1e-6, largest magnitude and number of non-finite
            entries, exact, as rows of shape ``(4, tensors)``.
        """
        ...

    def large_squares(self, values: Sequence[Tensor]) -> Numbers:
        """Return the exact sum of squares of each large tensor: ``(tensors,)``."""
        ...

    def join(self, first: Numbers, second: Numbers) -> Numbers:
        """Put two results after each other, along the last dimension."""
        ...

    def histogram(self, plan: Plan, numbers: Numbers) -> Numbers:
        """Count sampled magnitudes by octave: ``(tensors, HISTOGRAM_BINS)``."""
        ...

    def finite_sum(self, plan: Plan, values: Sequence[Tensor]) -> bool | Tensor:
        """Tell cheaply whether all entries are finite, or return a sum that will tell."""
        ...


def backend_for(device: torch.device) -> Backend:
    """Return the backend of a device."""
    return host_backend if devices.is_host(device) else device_backend
