"""What a batch is for a model: what goes in, and what it is compared with.

In: a batch as a data loader gives it. Out: inputs and targets, on the model's device, as copies.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["NOTHING", "call", "copied", "split"]

NOTHING = object()
"""Stands for targets where the batch has none."""


def split(batch: Any) -> tuple[Any, Any]:  # noqa: ANN401 - any data loader
    """Return inputs and targets; `NOTHING` where there are none.

    Args:
        batch: Inputs alone: a tensor, a mapping, a list or tuple of one. Or ``(inputs, targets)``.

    Raises:
        ValueError: It is a tuple or list of another length.

    Example:
        >>> inputs, targets = split([torch.ones(2, 3), torch.zeros(2)])
        >>> inputs.shape, targets.shape
        (torch.Size([2, 3]), torch.Size([2]))
    """
    if type(batch) not in {tuple, list}:
        return batch, NOTHING
    if len(batch) == 1:
        return batch[0], NOTHING
    if len(batch) == 2:
        return batch[0], batch[1]
    msg = (
        f"`batch` must be inputs or (inputs, targets), got a {type(batch).__name__} of "
        f"{len(batch)}. Put several inputs into a tuple of their own: ((a, b), targets); or give "
        "a dict, whose keys are arguments of the model's `forward`."
    )
    raise ValueError(msg)


def copied(batch: Any, device: torch.device) -> Any:  # noqa: ANN401 - any data loader
    """Return a batch on a device, its tensors as copies that no graph leads to."""
    if isinstance(batch, Tensor):
        return batch.detach().to(device, copy=True)
    if isinstance(batch, Mapping):
        parts = {key: copied(value, device) for key, value in batch.items()}
        return parts if type(batch) is dict else _rebuilt(batch, parts, device)
    if type(batch) in {tuple, list}:
        return type(batch)(copied(part, device) for part in batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields") and not hasattr(batch, "to"):
        rebuilt: Any = type(batch)
        return rebuilt(*(copied(part, device) for part in batch))
    return batch.to(device) if hasattr(batch, "to") else batch


def _rebuilt(batch: Any, parts: dict[Any, Any], device: torch.device) -> Any:  # noqa: ANN401
    """Return a mapping of its own class, such as a tokenizer's, where it can be moved."""
    return batch.to(device) if hasattr(batch, "to") else parts


def call(model: Callable[..., Any], inputs: Any) -> Any:  # noqa: ANN401 - any model
    """Call a model: a tuple as several arguments, a mapping by name where the names fit."""
    if type(inputs) in {tuple, list}:
        return model(*inputs)
    if isinstance(inputs, Mapping) and _fits(model, inputs):
        return model(**inputs)
    return model(inputs)


def _fits(model: Callable[..., Any], inputs: Mapping[Any, Any]) -> bool:
    forward = model.forward if isinstance(model, nn.Module) else model
    try:
        inspect.signature(forward).bind(**inputs)
    except TypeError:
        return False
    return True
