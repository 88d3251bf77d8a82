"""What a remedy can ask for, so that nothing is paid for what cannot happen.

In: a remedy. Out: what it says of itself; one that says nothing may do everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from lightning_gradguard.remedies.base import Remedy

__all__ = ["acts_on_findings", "find", "may_skip", "unwrapped"]

T = TypeVar("T")


def may_skip(remedy: Remedy) -> bool:
    """Whether it may leave steps out, by its attribute ``can_skip``.

    Example:
        >>> from lightning_gradguard.remedies.clip_norm import ClipNorm
        >>> may_skip(ClipNorm())
        False
    """
    return bool(getattr(remedy, "can_skip", True))


def acts_on_findings(remedy: Remedy) -> bool:
    """Whether it looks at anything in which ranks may differ, by its own attribute."""
    return bool(getattr(remedy, "acts_on_findings", True))


def find(remedies: Sequence[Remedy], kind: type[T]) -> list[T]:
    """Return the remedies of a kind, also those that others wrap."""
    return [r for remedy in remedies for r in unwrapped(remedy) if isinstance(r, kind)]


def unwrapped(remedy: object) -> Iterator[object]:
    """Go through a remedy, what it wraps, and what that wraps."""
    while remedy is not None:
        yield remedy
        remedy = getattr(remedy, "remedy", None)
