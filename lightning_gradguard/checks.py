"""What detectors ask of their arguments."""

from __future__ import annotations

__all__ = ["positive"]


def positive(name: str, value: float) -> float:
    """Return a number that must be positive.

    Raises:
        ValueError: It is not.

    Example:
        >>> positive("limit_decades", 4.0)
        4.0
    """
    if not value > 0.0:
        msg = f"`{name}` must be positive, got {value!r}."
        raise ValueError(msg)
    return value
