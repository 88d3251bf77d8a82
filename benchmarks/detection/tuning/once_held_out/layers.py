"""Layers that several architectures of this half are made of.

In and out: tensors. Nothing here knows a case or a fault.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["Apply", "Joined", "LayerScale", "Residual", "linear_weights", "scale_weights_"]


class Apply(nn.Module):
    """A function as a layer.

    Args:
        function: From a tensor, a tensor.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(inputs)


class Residual(nn.Module):
    """A body with a skip connection around it.

    Args:
        layers: The body.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Add what the body makes of the inputs to them."""
        total: Tensor = inputs + self.body(inputs)
        return total


class Joined(nn.Module):
    """Branches side by side, their outputs joined along the channels.

    Args:
        branches: Each is given the same inputs.
    """

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, inputs: Tensor) -> Tensor:
        """Join what the branches make of the inputs."""
        return torch.cat([branch(inputs) for branch in self.branches], dim=1)


class LayerScale(nn.Module):
    """A learned factor per channel, channels second.

    Args:
        channels: How many.
        initial: All factors at first.
    """

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((channels, 1, 1), initial))

    def forward(self, inputs: Tensor) -> Tensor:
        """Scale the channels."""
        return inputs * self.factor


def linear_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights of two dimensions or more, in the order of the model."""
    return [weight for weight in model.parameters() if weight.dim() > 1]


@torch.no_grad()
def scale_weights_(model: nn.Module, factor: float) -> nn.Module:
    """Multiply all weights of two dimensions or more in place."""
    for weight in linear_weights(model):
        weight.mul_(factor)
    return model
