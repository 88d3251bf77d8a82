"""Text that can do nothing to a terminal, nor begin a line of its own.

In: text, of which parts come from a model or from a file that anybody may have written. Out: the
same to read.
"""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return text that can do nothing to a terminal, nor begin a line of its own.

    Args:
        text: Any text.

    Returns:
        The text, in which control characters, line breaks, marks that turn the direction of
        writing, and halves of surrogate pairs are written as escapes.

    Example:
        >>> print(printable("layer\x1b[2J\n0 …"))
        layer\x1b[2J\n0 …
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
