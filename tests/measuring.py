"""Tensors in, sums out, with either backend: both can work with tensors on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_gradguard import measure
from lightning_gradguard.measure import device, host

BACKENDS: dict[str, Any] = {"host": host, "device": device}


def precision(backend: Any, tensor: Tensor) -> float:
    """Return to what share of their terms sums over a tensor are good, as the host promises."""
    is_wide = tensor.dtype in {torch.float64, torch.complex128}
    num_reals = tensor.numel() * (2 if tensor.is_complex() else 1)
    in_float32 = backend is host and num_reals > measure.SAMPLE_SIZE and not is_wide
    return 1e-6 if in_float32 else 1e-12


class Measuring:
    """Some tensors, and a plan of how to read them.

    Args:
        backend: What measures.
        tensors: In any order; large ones may stand between small ones.
        whole: Whether large ones are read whole, too.
    """

    def __init__(self, backend: Any, tensors: Sequence[Tensor], *, whole: bool = False) -> None:
        values = [measure.plain_values(tensor) for tensor in tensors]
        sizes = [value.numel() for value in values]
        is_large = [size > measure.SAMPLE_SIZE and not whole for size in sizes]
        self.order = sorted(range(len(values)), key=is_large.__getitem__)
        self.values = [values[i] for i in self.order]
        self.plan = measure.Plan.of([sizes[i] for i in self.order], is_large.count(False))
        self.backend = backend
        self.sample = measure.take_sample(self.plan, self.values)
        self.numbers = backend.wide(self.sample)

    def sums(self) -> dict[str, np.ndarray]:
        """Return the statistics of each tensor, in the order they were given."""
        sums = measure.gradient_sums(self.backend, self.plan, self.values, self.numbers)
        return {name: self.given(row) for name, row in sums.items()}

    def squares(self) -> np.ndarray:
        """Return exact sums of squares."""
        return self.given(measure.exact_squares(self.backend, self.plan, self.values, self.numbers))

    def sampled_squares(self) -> np.ndarray:
        """Return sums of squares estimated from the sample."""
        return self.given(measure.sampled_squares(self.backend, self.plan, self.numbers))

    def changes(self, after: Sequence[Tensor]) -> np.ndarray:
        """Return how many entries differ from those of other tensors, estimated."""
        other = Measuring(self.backend, after).numbers
        return self.given(measure.changed_entries(self.backend, self.plan, self.numbers, other))

    def histogram(self) -> np.ndarray:
        """Return one histogram per tensor."""
        counts = self.backend.histogram(self.plan, self.numbers)
        return self.given(self.backend.weigh(self.plan, counts))

    def is_finite(self) -> bool:
        """Tell whether all entries are, as the cheap glance sees it."""
        answer = self.backend.finite_sum(self.plan, self.values)
        return answer if isinstance(answer, bool) else bool(answer.isfinite())

    def given(self, rows: Any) -> np.ndarray:
        """Return rows in the order in which the tensors were given."""
        rows = np.asarray(rows)
        out = np.empty_like(rows)
        out[self.order] = rows
        return out
