"""Layers that change in a run, in one order.

In: the names of layers at some steps, in depth order. Out: all of them, in depth order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["merged"]


def merged(layouts: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Join lists of layers into one.

    Args:
        layouts: Names in depth order; the first decides the order where two do not agree.

    Returns:
        All names; one that the first list lacks comes after the one that it follows in its own.

    Example:
        >>> merged([["stem", "head"], ["stem", "block.0", "block.1", "head"], ["norm", "stem"]])
        ('norm', 'stem', 'block.0', 'block.1', 'head')
    """
    names: list[str] = []
    known: set[str] = set()
    for layout in layouts:
        if not known.issuperset(layout):
            names = _with(names, known, layout)
            known.update(layout)
    return tuple(names)


def _with(names: Sequence[str], known: set[str], layout: Sequence[str]) -> list[str]:
    before: str | None = None
    after: dict[str | None, list[str]] = {}
    for name in layout:
        if name in known:
            before = name
        else:
            after.setdefault(before, []).append(name)
    return [*after.get(None, ()), *(one for name in names for one in (name, *after.get(name, ())))]
