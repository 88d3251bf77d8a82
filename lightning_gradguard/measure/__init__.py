"""Gradients in, sums out: one plan per set of tensors, one backend per kind of device.

Sums and maxima can be merged over tensors, layers and shards; norms cannot, so norms are made
from them at the very end. Squares neither vanish at 1e-25 nor overflow at 1e20.
"""

from lightning_gradguard.measure.backend import Backend, Numbers, backend_for
from lightning_gradguard.measure.plan import Plan
from lightning_gradguard.measure.spacing import SAMPLE_SIZE
from lightning_gradguard.measure.statistics import (
    GRADIENT_STATISTICS,
    changed_entries,
    exact_squares,
    gradient_sums,
    sampled_squares,
)
from lightning_gradguard.measure.values import as_vector, join, plain_values, runs, take_sample

__all__ = [
    "GRADIENT_STATISTICS",
    "SAMPLE_SIZE",
    "Backend",
    "Numbers",
    "Plan",
    "as_vector",
    "backend_for",
    "changed_entries",
    "exact_squares",
    "gradient_sums",
    "join",
    "plain_values",
    "runs",
    "sampled_squares",
    "take_sample",
]
