"""Other learning rates, for the length of one step.

In: an optimizer, and a factor for each of its groups. Out: groups with smaller rates, and later
the user's own rates again. What somebody else has set meanwhile stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from lightning_gradguard.writes import num_writes

__all__ = ["Rates", "has_rate", "reads_rates_late"]


def has_rate(group: dict[str, Any]) -> bool:
    """Whether a parameter group has a learning rate that a factor can make smaller.

    Example:
        >>> [has_rate(group) for group in ({"lr": 0.1}, {"lr": None}, {"params": []})]
        [True, False, False]
    """
    return isinstance(group.get("lr"), (Real, Tensor))


def reads_rates_late(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the length of each step follows the rate as it is when gradients are complete.

    LBFGS reads it before, and a line search undoes it; Rprop reads it in its first step only.
    """
    return not isinstance(optimizer, (torch.optim.LBFGS, torch.optim.Rprop))


@dataclass(frozen=True, eq=False)
class _Scaled:
    """A group whose rate is not the user's.

    Attributes:
        group: The group.
        before: The user's rate, a copy.
        ours: What was set in its place, a copy.
        tensor: Where it was written to; None for a plain number.
        version: How often that was written to by then.
    """

    group: dict[str, Any]
    before: float | Tensor
    ours: float | Tensor
    tensor: Tensor | None = None
    version: int = 0

    @classmethod
    def of(cls, group: dict[str, Any], before: float | Tensor, factor: float) -> _Scaled:
        """Scale a group's rate; one that is a tensor stays the same, as a graph may have it."""
        rate, ours = group["lr"], before * factor
        if not isinstance(rate, Tensor):
            group["lr"] = ours
            return cls(group, before, ours)
        _write_(rate, ours)
        return cls(group, before, ours, rate, num_writes(rate))

    @property
    def is_in_force(self) -> bool:
        """Whether nobody has set another rate."""
        rate = self.group.get("lr")
        if not isinstance(rate, Tensor):
            # Not `==`: a schedule that halves arrives where a factor of a half does.
            return self.tensor is None and rate is self.ours
        if rate is not self.tensor:
            return False
        # Values are asked for only when needed, since on a device that waits.
        return num_writes(rate) == self.version or bool((rate == self.ours).all())

    def restore_(self) -> None:
        """Put the user's rate back."""
        if self.tensor is not None:
            _write_(self.tensor, self.before)
        else:
            self.group["lr"] = self.before


class Rates:
    """Learning rates of one optimizer.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
        >>> rates = Rates(optimizer)
        >>> rates.scale_([0.5]), optimizer.param_groups[0]["lr"]
        (None, 0.25)
        >>> rates.restore_(), optimizer.param_groups[0]["lr"]
        (None, 0.5)
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._scaled: dict[int, _Scaled] = {}

    def scale_(self, factors: Sequence[float]) -> None:
        """Multiply the user's rates; a group that has none is left alone.

        Args:
            factors: One per group; empty for nothing.
        """
        if not self._scaled and all(factor == 1.0 for factor in factors):
            return
        for index, (group, factor) in enumerate(
            zip(self._optimizer.param_groups, factors, strict=False)
        ):
            if has_rate(group):
                known = self._scaled.get(index)
                is_known = known is not None and known.group is group and known.is_in_force
                before = known.before if known is not None and is_known else _copy(group["lr"])
                self._scaled[index] = _Scaled.of(group, before, factor)

    def restore_(self) -> None:
        """Put the user's rates back, but where somebody has set another one meanwhile."""
        for scaled in self._scaled.values():
            if scaled.is_in_force:
                scaled.restore_()
        self._scaled = {}


def _copy(rate: float | Tensor) -> float | Tensor:
    return rate.detach().clone() if isinstance(rate, Tensor) else rate


@torch.no_grad()
def _write_(tensor: Tensor, rate: float | Tensor) -> None:
    tensor.copy_(torch.as_tensor(rate))
