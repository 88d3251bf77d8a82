"""Takes addresses and passwords out of texts, and leaves the ordinary words in them.

In: secrets. Out: a function from text to text. What of an address is secret: the whole of it, in
every form that it is written in; what stands before the ``@``; the values of its query; and such
parts of its host and its path as look like no word. What is a word or is short is taken out where
it stands as it does in the address, since it may stand anywhere else by chance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import quote, unquote

__all__ = ["scrubber"]

_SHORTEST: Final = 6
"""A token that is shorter tells nothing, and may stand in any text by chance."""
_LONGEST_WORD: Final = 20
_WORD: Final = re.compile(r"[A-Z]?[a-z]+(?:[-_][A-Z]?[a-z]+)*")
_HIDDEN: Final = "***"


def scrubber(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that takes secrets out of a text.

    Args:
        secrets: Addresses, which hold ``://``, and passwords, which do not.

    Example:
        >>> scrub = scrubber(["https://h.example/services/T0123456?key=shady", "hunter2"])
        >>> scrub("our services at h.example do not know T0123456, hunter2 or key=shady")
        'our services at h.example do not know ***, *** or ***'
    """
    anywhere: set[str] = set()
    alone: set[str] = set()
    for secret in secrets:
        for part in _parts(secret):
            (alone if _is_short_or_word(part) else anywhere).update(_forms(part))
    longest_first = sorted(anywhere | alone, key=len, reverse=True)
    patterns = [
        re.escape(part) if part in anywhere else rf"(?<!\w){re.escape(part)}(?!\w)"
        for part in longest_first
    ]
    if not patterns:
        return str
    pattern = re.compile("|".join(patterns))
    return lambda text: pattern.sub(_HIDDEN, text)


def _is_short_or_word(part: str) -> bool:
    return len(part) < _SHORTEST or _is_word(part)


def _is_word(part: str) -> bool:
    return len(part) <= _LONGEST_WORD and _WORD.fullmatch(part) is not None


def _forms(part: str) -> set[str]:
    """Return a secret as it is, without and with percents, and as `repr` shows these."""
    plain = unquote(part)
    forms = {part, plain, *(quote(one, safe="", errors="replace") for one in (part, plain))}
    return forms | {repr(form)[1:-1] for form in forms}


def _parts(secret: str) -> Iterator[str]:
    """Yield what is to be taken out for a secret."""
    yield secret
    _, mark, rest = secret.partition("://")
    if not mark:
        return
    before, _, query = rest.partition("?")
    where, _, path = before.rstrip("/").partition("/")
    user, at, host = where.rpartition("@")
    yield from _of_user(user if at else "")
    yield from _of_query(query.partition("#")[0])
    for tail in filter(None, (path, f"{path}?{query}" if query else "")):
        yield f"{host}/{tail}"
        yield f"/{tail}"
    yield from _tokens(f"{user}/{path}", host)


def _of_user(user: str) -> Iterator[str]:
    _, _, password = user.partition(":")
    if password:
        yield user
        yield password


def _tokens(path: str, host: str) -> Iterator[str]:
    """Yield what looks like no word, as a whole and between its dots."""
    between_marks = re.split(r"[/:@,;&=#\s]+", path)
    between_dots = [label for one in (*between_marks, host) for label in re.split(r"[.:]", one)]
    yield from (one for one in (*between_marks, *between_dots) if not _is_short_or_word(one))


def _of_query(query: str) -> Iterator[str]:
    for pair in query.split("&"):
        _, _, value = pair.partition("=")
        if value:
            yield pair
        if len(value) >= _SHORTEST:
            yield value
