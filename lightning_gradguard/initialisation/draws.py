"""New weight matrices, as the textbooks draw them.

In: a weight matrix as a module has it. Out: another of its shape, dtype and device. Nothing is
written to the module, and no global random number is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ["INITIALISATIONS", "Draw", "can_be_drawn", "draw", "fans"]

_MADE_OF: Final = ("_g", "_v", "_orig")
"""How torch calls the parameters that a weight is made of."""

Draw = Callable[[Tensor, tuple[float, float], torch.Generator], Tensor]


def xavier(matrix: Tensor, fan: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draw with variance 2 / (inputs + outputs)."""
    return _normal(matrix, generator) * math.sqrt(2.0 / sum(fan))


def he(matrix: Tensor, fan: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draw with variance 2 / inputs."""
    return _normal(matrix, generator) * math.sqrt(2.0 / fan[0])


def orthogonal(matrix: Tensor, _fan: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draw rows, or columns where these are fewer, that are orthogonal and of length one."""
    flat = _normal(matrix, generator).flatten(1).to(matrix.device)
    is_wide = flat.shape[0] < flat.shape[1]
    q, r = torch.linalg.qr(flat.t() if is_wide else flat)
    q *= r.diagonal().sign()  # without it, not all directions would be equally likely
    rows: Tensor = q.t() if is_wide else q
    return rows.reshape(matrix.shape)


def orthogonal_for_relu(
    matrix: Tensor, fan: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Draw as `orthogonal`, times the square root of two, which ReLU takes away."""
    return orthogonal(matrix, fan, generator) * math.sqrt(2.0)


INITIALISATIONS: Final[Mapping[str, Draw]] = {
    "Xavier": xavier,
    "He": he,
    "orthogonal": orthogonal,
    "orthogonal × √2": orthogonal_for_relu,
}
"""What is compared with the weights as they are; normal where it is not orthogonal."""


def can_be_drawn(module: nn.Module, parameter: Tensor) -> bool:
    """Whether a parameter is a weight matrix that the rules speak of.

    Not where the weight is made of other parameters, as by weight norm, spectral norm or pruning;
    nor where there are more than two dimensions outside of convolutions.

    Example:
        >>> can_be_drawn(layer := nn.Linear(2, 3), layer.weight), can_be_drawn(layer, layer.bias)
        (True, False)
    """
    names = dict(module.named_parameters(recurse=False))
    if hasattr(module, "parametrizations") or any(n.endswith(_MADE_OF) for n in names):
        return False
    is_conv = isinstance(module, nn.modules.conv._ConvNd)  # noqa: SLF001 - the one base class there is
    return parameter.dim() == 2 or (is_conv and parameter.dim() > 2)


def draw(
    module: nn.Module, name: str, weight: Tensor, how: Draw, generator: torch.Generator
) -> Tensor:
    """Return another weight matrix for a module.

    Args:
        module: Whose weight it is.
        name: Its name in the module, such as ``"weight"`` or ``"weight_hh_l0"``.
        weight: As it is now; at least two dimensions.
        how: One of `INITIALISATIONS`.
        generator: Where random numbers come from; on the CPU, so that devices agree.

    Returns:
        A tensor of the same shape, dtype and device. What lies in one tensor is
        drawn one by one: gates of recurrent layers, projections of attention, groups.

    Source:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", 2010; He et al., "Delving deep into rectifiers", 2015,
        https://arxiv.org/abs/1502.01852; Saxe et al., "Exact solutions to the nonlinear dynamics
        of learning in deep linear neural networks", 2014, https://arxiv.org/abs/1312.6120.
    """
    blocks = weight.detach().chunk(_blocks(module, name))
    drawn = [how(block, fans(module, block), generator).to(weight.device) for block in blocks]
    return torch.cat(drawn).to(weight.dtype)


def fans(module: nn.Module, weight: Tensor) -> tuple[float, float]:
    """Return how many inputs an output has, and how many outputs an input.

    Args:
        module: Whose weight it is.
        weight: All of it, or one of the matrices that lie in it, such as that of one group.

    Example:
        >>> fans(nn.Conv2d(4, 8, 3), torch.empty(8, 4, 3, 3))
        (36.0, 72.0)
    """
    rows, columns = weight.shape[:2]
    places = math.prod(weight.shape[2:])
    if not isinstance(module, nn.modules.conv._ConvNd):  # noqa: SLF001 - the one base class there is
        return float(columns), float(rows)
    jumps = math.prod(module.stride)
    if module.transposed:
        return rows * places / jumps, float(columns * places)
    return float(columns * places), rows * places / jumps


def _blocks(module: nn.Module, name: str) -> int:
    """Return how many matrices lie in one tensor, one below the other."""
    if isinstance(module, nn.modules.conv._ConvNd):  # noqa: SLF001 - the one base class there is
        return module.groups
    if isinstance(module, nn.MultiheadAttention) and name == "in_proj_weight":
        return 3
    if isinstance(module, (nn.LSTM, nn.LSTMCell)) and not name.startswith("weight_hr"):
        return 4
    is_stacked = isinstance(module, (nn.GRU, nn.GRUCell))
    return 3 if is_stacked else 1


def _normal(matrix: Tensor, generator: torch.Generator) -> Tensor:
    wide = torch.float64 if matrix.dtype is torch.float64 else torch.float32
    return torch.randn(matrix.shape, generator=generator, dtype=wide)
