"""Weights and optimizer state as they were before a step.

In: an optimizer. Out: the same, as it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["StepState", "parameters_of"]


class StepState:
    """What a step is about to change.

    For a step that may be left out only after it changed something: a line search changes weights
    while it looks, and optimizers that are not torch's may decay them without a gradient.

    Args:
        optimizer: Its parameters and state are copied, on their devices.

    Example:
        >>> weight = nn.Parameter(torch.ones(1))
        >>> before = StepState(torch.optim.SGD([weight], lr=0.1))
        >>> _ = nn.init.zeros_(weight)
        >>> before.restore_(), weight.item()
        (None, 1.0)
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._weights = [(p, p.detach().clone()) for p in parameters_of(optimizer)]
        self._state = {p: _copy_of(state) for p, state in optimizer.state.items()}

    @torch.no_grad()
    def restore_(self) -> None:
        """Go back to them."""
        for parameter, weights in self._weights:
            parameter.copy_(weights)
        self._optimizer.state.clear()
        self._optimizer.state.update(self._state)


def _copy_of(value: Any) -> Any:  # noqa: ANN401 - optimizers keep what they like
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_of(item) for item in value]
    return value


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return the parameters of all groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
