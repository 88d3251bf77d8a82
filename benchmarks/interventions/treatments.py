"""What is done about a failing training: nothing, a published cure, or one of ours.

In: nothing. Out: the arguments of `GradientGuard`, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["NONE", "PUBLISHED", "TREATMENTS"]

NONE: Final = "none"

TREATMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    NONE: {},
    "norm": {"clip": 1.0},
    "autoclip": {"clip": "autoclip"},
    "zclip": {"clip": "zclip"},
    "agc": {"clip": "agc"},
    "robust": {"clip": "robust"},
    "skip": {"on_nonfinite": "skip", "on_exploding": "skip"},
    "reduce_lr": {"on_exploding": "reduce_lr", "on_diverging": "reduce_lr"},
    "rollback": {
        "on_exploding": "rollback",
        "on_diverging": "rollback",
        "on_nonfinite": "rollback",
    },
    "auto": {"policy": "auto"},
}
"""Each with its default settings."""

PUBLISHED: Final = ("norm", "autoclip", "zclip", "agc")
"""Clippers that others have published."""
