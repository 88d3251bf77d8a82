"""Frames as JSON types, so that a checkpoint can carry those that nobody has acted on yet.

In: a `Frame`. Out: a dictionary, and the same frame again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import numpy as np

from lightning_gradguard.activation import Activation
from lightning_gradguard.frame import Frame

__all__ = ["frame_from_dict", "frame_to_dict"]

_TUPLES: Final = {"layers", "learning_rates", "roles"}


def frame_to_dict(frame: Frame) -> dict[str, Any]:
    """Return everything in a frame, as JSON types."""
    return {field.name: _plain(getattr(frame, field.name)) for field in fields(frame)}


def frame_from_dict(state: Mapping[str, Any]) -> Frame:
    r"""Return the frame that `frame_to_dict` was asked about, without what this version knows not.

    Example:
        >>> columns = "grad_rms grad_mean grad_std grad_abs_max zero_fraction num_nonfinite " \
        ...     "param_norm update_norm weight_grad_norm weight_param_norm weight_update_norm"
        >>> frame = Frame(step=3, layers=("a",), grad_norm=np.ones(1), global_grad_norm=1.0,
        ...     is_sampled=np.array([True]), **dict.fromkeys(columns.split(), np.zeros(1)))
        >>> frame_from_dict(frame_to_dict(frame)).grad_norm
        array([1.])
    """
    known = {field.name for field in fields(Frame)}
    found = {k: _rich(v, k in _TUPLES) for k, v in state.items() if k in known - {"activations"}}
    activations = [Activation(**_rich(one)) for one in state.get("activations", ())]
    return Frame(**found, activations=tuple(activations))


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a frame holds
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Activation):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _rich(value: Any, is_tuple: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - as above
    if isinstance(value, Mapping):
        return {key: _rich(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(value) if is_tuple else np.array(value)
    return value
