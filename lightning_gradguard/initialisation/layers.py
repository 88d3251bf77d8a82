"""Which layers have a weight matrix.

In: a model. Out: its layers by name, each with its role. Names and shapes only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from torch import nn

from lightning_gradguard.roles import Role
from lightning_gradguard.scope import ROOT, clean_name, is_matrix, role_of

__all__ = ["Layers", "matrix_layers"]

Layers: TypeAlias = Mapping[str, tuple[nn.Module, Role]]

_WITHOUT: Final = frozenset({"norm", "vectors", "container"})


def matrix_layers(model: nn.Module) -> Layers:
    """Return the layers with a weight matrix, by name; a shared one by its first name.

    Example:
        >>> list(matrix_layers(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.ReLU())))
        ['0']
    """
    found: dict[str, tuple[nn.Module, Role]] = {}
    for name, module in model.named_modules():
        # A parametrization, which makes a weight from other numbers, is part of its layer.
        if ".parametrizations." in f".{name}." or not _has_matrix(module):
            continue
        role = role_of(module)
        if role not in _WITHOUT:
            found[clean_name(name) or ROOT] = (module, role)
    return found


def _has_matrix(module: nn.Module) -> bool:
    made = getattr(module, "parametrizations", None)
    inside = made.parameters() if isinstance(made, nn.Module) else ()
    return any(map(is_matrix, (*module.parameters(recurse=False), *inside)))
