"""Which activation functions have hidden units, and the names of units in few words.

In: a frame. Out: what `Saturated` and `Unfired` both look at.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lightning_gradguard.activation import Activation
from lightning_gradguard.frame import Frame, Mask

__all__ = ["advice_on_dead", "hidden_activations", "unit_phrase"]

_NOT_JUDGED: Final = {
    "softmax",
    "input gate",
    "forget gate",
    "output gate",
    "reset gate",
    "update gate",
}
"""A choice is meant to be sharp, and a gate to shut."""
_MOST_NAMED: Final = 5


def _is_judged(function: str) -> bool:
    """Whether sharpness is a fault: a choice is meant to be sharp, and a gate to shut."""
    return function != "softmax" and not function.endswith(" gate")


def hidden_activations(frame: Frame) -> dict[str, Activation]:
    """Return the functions that are judged, each under a name of its own.

    What follows the last layer is left out: its units are answers.
    """
    answers = _last_weights(frame)
    found: dict[str, Activation] = {}
    for place, one in enumerate(frame.activations):
        is_answer = answers in {one.layer, f"{one.layer}.weight"}
        if _is_judged(one.function) and not is_answer:
            found[f"{place}/{one.layer}/{one.function}"] = one
    return found


def _last_weights(frame: Frame) -> str:
    """Return the last layer in depth order that has a weight matrix."""
    there = np.flatnonzero(~np.isnan(frame.weight_param_norm))
    return frame.layers[int(there[-1])] if len(there) else ""


def unit_phrase(units: Mask) -> str:
    """Say how many units, and which.

    Args:
        units: Which they are, ``(units,)``.

    Example:
        >>> unit_phrase(np.array([True, False, True, False]))
        '2 of 4 units (0, 2)'
        >>> unit_phrase(np.arange(20) != 3)
        '19 of 20 units (0, 1, 2, 4, 5, …)'
        >>> unit_phrase(np.ones(3, bool))
        'all 3 units'
    """
    places = np.flatnonzero(units).tolist()
    if len(places) == len(units):
        return f"all {len(places)} units"
    names = [*map(str, places[:_MOST_NAMED]), *(["…"] if len(places) > _MOST_NAMED else [])]
    return f"{len(places)} of {len(units)} units ({', '.join(names)})"


def advice_on_dead(*, at_birth: bool) -> str:
    """Say what helps units that are dead.

    Args:
        at_birth: Whether they have been so from the first step on.
    """
    cure = "a lower learning rate, or batch normalisation"
    if at_birth:
        cure = "an initialisation that suits the activation, without large negative biases"
    return f"{cure}; changing to leaky ReLU later does not wake them."
