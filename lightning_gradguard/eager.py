"""What torch must not compile.

In: a function of ours that torch may call from inside something compiled, such as a compiled
optimizer step. Out: the same function, which always runs as written: traced, numpy becomes
tensors and a number read off the host becomes another graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch

__all__ = ["eager"]

P = ParamSpec("P")
R = TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Keep a function, and all that it calls, out of what torch compiles.

    Example:
        >>> @eager
        ... def is_traced():
        ...     return torch.compiler.is_compiling()
        >>> torch.compile(lambda: is_traced(), backend="eager")()
        False
    """
    disable: Any = torch.compiler.disable  # which has no types
    return cast("Callable[P, R]", disable(function))
