"""Errors that callers may want to catch.

In: nothing. Out: exception types. Argument mistakes raise plain ``ValueError`` or
``TypeError``; what is here is trouble that shows only at run time.
"""

from __future__ import annotations

__all__ = [
    "GradGuardError",
    "HistoryError",
    "NoGradientError",
    "ShardedGradientError",
    "TrainingStoppedError",
]


class GradGuardError(RuntimeError):
    """Base of every run-time error of this package."""


class HistoryError(GradGuardError):
    """A history file is missing, cannot be read, or must not be written."""


class NoGradientError(GradGuardError):
    """Gradients were asked for where there are none."""


class ShardedGradientError(GradGuardError):
    """Gradients are split over ranks, so that local numbers would be wrong."""


class TrainingStoppedError(GradGuardError):
    """A guard ended the training, since it was told to or could not help any longer."""
