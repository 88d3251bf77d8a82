"""What a model must be for the initialisation check.

In: what a user gave. Out: the model without wrappers, or an error that says what to do.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from lightning_gradguard.errors import ShardedGradientError
from lightning_gradguard.scope import unwrap

__all__ = ["check_arguments", "check_parameters", "without_wrappers"]

_MOST_SEED: Final = 2**32 - 1  # numpy takes no more


def check_arguments(model: object, loss: object, seed: object) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless these arguments are of use."""
    if not isinstance(model, nn.Module):
        msg = f"`model` must be a torch module, got {model!r}."
        raise TypeError(msg)
    if not (loss is None or loss == "random" or callable(loss)):
        msg = f"`loss` must be a function, 'random' or None, got {loss!r}."
        raise TypeError(msg)
    if not isinstance(seed, int) or isinstance(seed, bool):
        msg = f"`seed` must be an integer, got {seed!r}."
        raise TypeError(msg)
    if not 0 <= seed <= _MOST_SEED:
        msg = f"`seed` must be in [0, 2**32 - 1], got {seed!r}."
        raise ValueError(msg)


def without_wrappers(model: nn.Module) -> nn.Module:
    """Return what was wrapped for compilation or for several devices."""
    while True:
        inside = unwrap(getattr(model, "_orig_mod", model))
        if inside is model:
            return model
        model = inside


def check_parameters(model: nn.Module) -> None:
    """Raise unless all weights are there, whole, and in modules that take hooks."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            msg = (
                f"`preflight` needs weights that have a shape, got {name!r}, which is lazy. Call "
                "the model once before."
            )
            raise ValueError(msg)  # noqa: TRY004 - what is wrong is its state
        if parameter.is_meta:
            msg = (
                f"`preflight` needs weights that have numbers, got {name!r} on the meta device. "
                "Move the model to a device, and initialise it, before."
            )
            raise ValueError(msg)
        if hasattr(parameter, "placements"):
            msg = (
                f"`preflight` needs whole weights, got {name!r}, which is split over ranks. Check "
                "the model before it is split."
            )
            raise ShardedGradientError(msg)
    scripted = [n for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    if scripted:
        msg = (
            f"`preflight` needs modules that can be watched, got {scripted[0] or 'a model'!r} of "
            "TorchScript. Give the module that it was made from."
        )
        raise ValueError(msg)
