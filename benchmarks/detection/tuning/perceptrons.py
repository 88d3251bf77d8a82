"""Perceptrons with a choice of depth, activation, initialisation, norm and skips."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["Skip", "Times", "TwoBranches", "initialised", "perceptron"]


class Skip(nn.Module):
    """Add the input of a branch to its output."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``inputs + branch(inputs)``."""
        summed: Tensor = inputs + self.branch(inputs)
        return summed


def perceptron(
    hidden: int,
    activation: Callable[[], nn.Module] = nn.ReLU,
    *,
    units: int = 64,
    inputs: int = 64,
    outputs: int = 10,
    norm: bool = False,
    skip: bool = False,
    initialise: Callable[[nn.Linear | nn.Conv2d], None] | None = None,
) -> nn.Sequential:
    """Return a perceptron.

    Args:
        hidden: Hidden layers.
        activation: Follows each.
        units: Of each hidden layer.
        inputs: Numbers per example, after flattening.
        outputs: Numbers that come out.
        norm: Whether a batch norm stands before each activation.
        skip: Whether all hidden layers but the first have an identity beside them.
        initialise: Called with each linear layer.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for index in range(hidden):
        block: list[nn.Module] = [nn.Linear(units if index else inputs, units)]
        block += [nn.BatchNorm1d(units)] if norm else []
        block += [activation()]
        layers += [Skip(*block)] if skip and index else block
    model = nn.Sequential(*layers, nn.Linear(units if hidden else inputs, outputs))
    return model if initialise is None else initialised(model, initialise)


def initialised(
    model: nn.Sequential, initialise: Callable[[nn.Linear | nn.Conv2d], None]
) -> nn.Sequential:
    """Call a function with each linear or convolutional layer of a model."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            initialise(module)
    return model


class Times(nn.Module):
    """Multiply by a fixed number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the product."""
        return inputs * self.factor


class TwoBranches(nn.Module):
    """A shallow branch sees the top rows of an image, a deep one the rest.

    Args:
        deep: Makes the deep branch, from the numbers of inputs and outputs.
    """

    def __init__(self, deep: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.shallow = perceptron(1, inputs=16, outputs=10)
        self.deep = deep(inputs=48, outputs=10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the sum of both branches' logits."""
        rows = images.flatten(1)
        logits: Tensor = self.shallow(rows[:, :16]) + self.deep(rows[:, 16:])
        return logits
