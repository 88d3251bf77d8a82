"""What detectors ask of their arguments, and records of what somebody else may have written."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["check_types", "positive"]


def check_types(kind: type | tuple[type, ...], values: Iterable[object]) -> None:
    """Raise ``TypeError`` unless all values are of a type.

    Example:
        >>> check_types(str, ["encoder.0", 1])
        Traceback (most recent call last):
        TypeError: a record holds 1 where it should hold str
    """
    for value in values:
        if not isinstance(value, kind):
            names = " or ".join(
                one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,))
            )
            msg = f"a record holds {value!r} where it should hold {names}"
            raise TypeError(msg)


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
