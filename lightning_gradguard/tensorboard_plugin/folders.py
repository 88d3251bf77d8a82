"""Which runs lie beneath TensorBoard's log directory.

In: TensorBoard's flags. Out: names and paths of histories. A name that a browser sends is only
ever looked up among these; it never becomes a path.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["Folders"]

_REMOTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SECONDS: Final = 5.0
"""A list of runs is used for so long: looking through a large folder takes time."""
_PATIENCE_SECONDS: Final = 0.5


class Folders:
    """The histories beneath some log directories.

    Args:
        logdir: TensorBoard's ``--logdir``; may be empty.
        logdir_spec: TensorBoard's ``--logdir_spec``: ``name:folder``, joined by commas.

    Attributes:
        message: What to tell somebody who finds no run; empty if there is nothing to tell.

    Example:
        >>> Folders("gs://bucket/logs").message[:36]
        'gs://bucket/logs is not on this disk'
    """

    def __init__(self, logdir: str = "", logdir_spec: str = "") -> None:
        named = list(_named(logdir_spec)) if logdir_spec else [("", logdir)] if logdir else []
        remote = [folder for _, folder in named if _REMOTE.match(folder)]
        self._roots = [(name, Path(folder).expanduser()) for name, folder in named
                       if folder not in remote]  # fmt: skip
        self._found: dict[str, Path] = {}
        self._until = 0.0
        self._looking: threading.Thread | None = None
        self._lock = threading.Lock()
        self.message = ""
        if remote:
            self.message = (
                f"{', '.join(remote)} is not on this disk. The tab reads "
                "gradguard/history.sqlite files, which need a local folder: copy the logs here "
                "and start TensorBoard on the copy."
            )

    def runs(self, *, fresh: bool = False) -> dict[str, Path]:
        """Return the history files by the names of their runs, sorted.

        Args:
            fresh: Look again, even if that was done a moment ago.
        """
        with self._lock:
            if fresh or time.monotonic() >= self._until:
                self._found = dict(sorted(self._look()))
                self._until = time.monotonic() + _SECONDS
            return self._found

    def latest(self) -> str | None:
        """Return the run that was written to last, of those known; None if there is none."""
        return max(self._found, key=lambda name: _written(self._found[name]), default=None)

    def has_runs(self) -> bool:
        """Whether there is a run, as far as that is known after a moment.

        TensorBoard asks before it shows anything, so a large folder is looked through behind its
        back, and the answer is right the next time.
        """
        if not self._found and (self._looking is None or not self._looking.is_alive()):
            self._looking = threading.Thread(target=self.runs, name="gradguard-runs", daemon=True)
            self._looking.start()
            self._looking.join(_PATIENCE_SECONDS)
        return bool(self._found)

    def _look(self) -> list[tuple[str, Path]]:
        from lightning_gradguard.history.places import find_histories, name_of

        found: dict[str, Path] = {}
        for name, root in self._roots:
            for path in find_histories(root):
                wanted = "/".join(filter(None, (name, name_of(path, root))))
                free, number = wanted, 2
                while free in found:  # two log directories may have runs of one name
                    free, number = f"{wanted} ({number})", number + 1
                found[free] = path
        return list(found.items())


def _written(path: Path) -> float:
    """Return when a file was written to, or what SQLite keeps beside it."""
    times = [0.0]
    for one in (path, Path(f"{path}-wal")):
        with suppress(OSError):
            times.append(one.stat().st_mtime)
    return max(times)


def _named(spec: str) -> list[tuple[str, str]]:
    """Split ``name:folder,folder`` as TensorBoard does; an address keeps its colon.

    Example:
        >>> _named("a:/logs/a,/logs/b,c:gs://x")
        [('a', '/logs/a'), ('', '/logs/b'), ('c', 'gs://x')]
    """
    pairs = []
    for part in spec.split(","):
        name, colon, folder = part.partition(":")
        has_name = bool(colon) and not folder.startswith("//") and "/" not in name
        pairs.append((name, folder) if has_name else ("", part))
    return pairs
