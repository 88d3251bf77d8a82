"""Hooks of ours run in the middle of a training's passes, and must never end them.

In: a hook. Out: the same, which keeps the first error and is quiet from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

__all__ = ["Failures"]

P = ParamSpec("P")


class Failures:
    """Keep the first error of some hooks.

    Attributes:
        first: It, or None.

    Example:
        >>> failures = Failures()
        >>> failures.caught(lambda: 1 / 0)()
        >>> failures.first
        ZeroDivisionError('division by zero')
    """

    def __init__(self) -> None:
        self.first: Exception | None = None

    def caught(self, hook: Callable[P, object]) -> Callable[P, None]:
        """Return a hook that never raises, and that does nothing once any has failed."""

        @wraps(hook)
        def quiet(*args: P.args, **kwargs: P.kwargs) -> None:
            if self.first is not None:
                return
            try:
                hook(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever a tensor of the user's does
                self.first = error

        return quiet
