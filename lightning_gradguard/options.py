"""Checks of arguments, with messages that say what was required, what came and what to do.

In: what a person wrote. Out: nothing, or an error. Configuration is checked when an object is
made, never at step 40,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

__all__ = [
    "as_globs",
    "check_bool",
    "check_callable",
    "check_choice",
    "check_count",
    "check_fraction",
    "check_parts",
    "check_positions",
    "check_positive",
    "check_share",
    "check_text",
]


def as_globs(argument: str, globs: object) -> tuple[str, ...]:
    """Return globs as a tuple; a single one may come alone, and None is none.

    Raises:
        TypeError: They are no texts.

    Example:
        >>> as_globs("include", "encoder.*"), as_globs("exclude", None)
        (('encoder.*',), ())
    """
    found = () if globs is None else (globs,) if isinstance(globs, str) else globs
    if not isinstance(found, (Sequence, AbstractSet)) or not all(map(_is_text, found)):
        msg = f"`{argument}` must be a text or a list of texts, got {globs!r}."
        raise TypeError(msg)
    return tuple(found)


def check_bool(**flags: object) -> None:
    """Raise ``TypeError`` unless all of some arguments are True or False: any text is truthy.

    Example:
        >>> check_bool(dry_run="no")
        Traceback (most recent call last):
        TypeError: `dry_run` must be True or False, got 'no'.
    """
    for argument, flag in flags.items():
        if not isinstance(flag, bool):
            msg = f"`{argument}` must be True or False, got {flag!r}."
            raise TypeError(msg)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def check_text(**texts: object) -> None:
    """Raise ``TypeError`` unless all of some arguments are texts."""
    for argument, text in texts.items():
        if not isinstance(text, str):
            msg = f"`{argument}` must be a text, got {text!r}."
            raise TypeError(msg)


def check_positions(argument: str, positions: object) -> None:
    """Raise ``TypeError`` unless the value is None or a list of positions.

    Example:
        >>> check_positions("groups", 0)
        Traceback (most recent call last):
        TypeError: `groups` must be a list of positions, such as [0, 1], got 0.
    """
    if positions is None:
        return
    if not isinstance(positions, Sequence) or not all(map(_is_whole, positions)):
        msg = f"`{argument}` must be a list of positions, such as [0, 1], got {positions!r}."
        raise TypeError(msg)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """Raise ``ValueError`` unless the value is one of the choices."""
    if value not in choices:
        msg = f"`{argument}` must be {' or '.join(map(repr, choices))}, got {value!r}."
        raise ValueError(msg)


def check_count(argument: str, value: object, *, least: int = 1) -> None:
    """Raise ``ValueError`` unless the value is a whole number that is large enough."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        msg = f"`{argument}` must be a whole number of at least {least}, got {value!r}."
        raise ValueError(msg)


def check_share(argument: str, value: object) -> None:
    """Raise ``ValueError`` unless the value is a number above 0 and up to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value <= 1.0:
        msg = f"`{argument}` must be a share above 0 and up to 1, such as 0.02, got {value!r}."
        raise ValueError(msg)


def check_positive(**numbers: object) -> None:
    """Raise ``ValueError`` unless all of some arguments are numbers above zero.

    Example:
        >>> check_positive(max_norm=-1.0)
        Traceback (most recent call last):
        ValueError: `max_norm` must be a number above 0, got -1.0.
    """
    for argument, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not number > 0.0:
            msg = f"`{argument}` must be a number above 0, got {number!r}."
            raise ValueError(msg)


def check_fraction(**numbers: object) -> None:
    """Raise ``ValueError`` unless all of some arguments are between 0 and 1, both excluded."""
    for argument, number in numbers.items():
        if not isinstance(number, (int, float)) or not 0.0 < number < 1.0:
            msg = f"`{argument}` must be between 0 and 1, got {number!r}."
            raise ValueError(msg)


def check_callable(argument: str, value: object) -> None:
    """Raise ``TypeError`` unless the value is None or a function."""
    if value is not None and not callable(value):
        msg = f"`{argument}` must be a function, got {value!r}."
        raise TypeError(msg)


def check_parts(argument: str, parts: object, *, method: str) -> None:
    """Raise ``TypeError`` unless parts are None or a list of objects with a method.

    Example:
        >>> check_parts("sinks", [print], method="emit")
        Traceback (most recent call last):
        TypeError: `sinks` must be objects with a method `emit`, got <built-in function print>.
    """
    if parts is None:
        return
    if not isinstance(parts, (list, tuple)):
        msg = f"`{argument}` must be a list of objects with a method `{method}`, got {parts!r}."
        raise TypeError(msg)
    for part in parts:
        if isinstance(part, type):
            name = part.__name__
            msg = f"`{argument}` must be objects, got the class {name}. Write {name}()."
            raise TypeError(msg)
        if not callable(getattr(part, method, None)):
            msg = f"`{argument}` must be objects with a method `{method}`, got {part!r}."
            raise TypeError(msg)
