"""Addresses and passwords, which nobody may read in what a run writes.

In: the name of an environment variable or of a file. Out: the text itself, to those who send.
Arguments of ours name a secret and never are one, so that no configuration, checkpoint or picture
of an object can hold it. `scrub` takes it out of texts.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

__all__ = ["Secret"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_BYTES: Final = 65536


class Secret:
    """A text that is read where it is used, and shown nowhere.

    Args:
        what: What it is, for messages, such as ``"the webhook's address"``.
        env: Name of the environment variable that holds it.
        file: Name of a file that holds it, which goes before the variable; None for none.

    Raises:
        ValueError: What was given is no name: perhaps the secret itself.

    Example:
        >>> os.environ["A_SECRET"] = "abc123def"
        >>> secret = Secret("an address", "A_SECRET")
        >>> secret, secret.read()
        (Secret('A_SECRET'), 'abc123def')
        >>> del os.environ["A_SECRET"]
    """

    def __init__(self, what: str, env: str, file: str | None = None) -> None:
        if not _NAME.fullmatch(env) or (file is not None and "://" in file):
            # What came is not shown: it may be the secret.
            msg = f"{what} must be named by an environment variable or a file, not be given itself."
            raise ValueError(msg)
        self._what, self._env, self._file = what, env, file

    def __repr__(self) -> str:
        """Name where it comes from."""
        return f"Secret({self._file or self._env!r})"

    def read(self) -> str:
        """Return the text, without space around it.

        Raises:
            ValueError: There is none.
        """
        found = os.environ.get(self._env, "") if self._file is None else self._from_file()
        if not found.strip():
            where = f"the environment variable {self._env}" if self._file is None else self._file
            msg = f"{self._what} must be in {where}, which is not set or empty."
            raise ValueError(msg)
        return found.strip()

    def _from_file(self) -> str:
        try:
            with Path(str(self._file)).expanduser().open(encoding="utf-8") as file:
                return file.read(_MOST_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{self._what} must be in {self._file}, which cannot be read: {error}."
            raise ValueError(msg) from error
