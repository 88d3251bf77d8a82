"""Where histories are.

In: what a person named. Out: files. Opens none of them.
"""

from __future__ import annotations

import os
from pathlib import Path

from lightning_gradguard.errors import HistoryError
from lightning_gradguard.history.tables import APPLICATION_ID, FILE_NAME, FOLDER_NAME

__all__ = ["belongs_to_a_history", "find_histories", "locate", "name_of", "next_free"]


def find_histories(folder: Path | str) -> list[Path]:
    """Return all history files beneath a folder, sorted; links to folders are not followed.

    Raises:
        HistoryError: It is a remote address.

    Example:
        >>> find_histories("nowhere")
        []
    """
    _refuse_remote(folder)
    found: list[Path] = []
    for here, _, names in os.walk(folder):
        if Path(here).name == FOLDER_NAME:
            found += [Path(here, name) for name in names if _is_history(Path(here, name))]
    return sorted(found)


def _is_history(path: Path) -> bool:
    """Whether a file may be one, by its name; one that cannot be looked at is none."""
    is_named = path.name == FILE_NAME or (
        path.name.startswith("history-") and path.name.endswith(".sqlite")
    )
    return is_named and os.path.isfile(path)  # noqa: PTH113 - which answers where a Path raises


def belongs_to_a_history(path: Path) -> bool:
    """Whether a file is a history, or is what SQLite keeps beside one.

    Example:
        >>> belongs_to_a_history(Path("version_0", "gradguard", "history-2.sqlite-wal"))
        True
    """
    stem = FILE_NAME.partition(".")[0]
    if path.parent.name == FOLDER_NAME and path.name.startswith(stem):
        return True
    if not path.is_file():
        return False  # a pipe would be waited for
    try:
        with path.open("rb") as file:
            return file.read(72)[68:] == APPLICATION_ID.to_bytes(4, "big")
    except OSError:
        return False


def next_free(path: Path) -> Path:
    """Make an empty file, under the path or with a number where there is a file already.

    The file is made at once, so that nobody else takes the same.

    Raises:
        OSError: The folder does not let us.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [next_free(Path(folder, "history.sqlite")).name for _ in range(2)]
        ['history.sqlite', 'history-2.sqlite']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number, free = 2, path
    while True:
        try:
            free.touch(exist_ok=False)
        except FileExistsError:
            free, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
        else:
            return free


def name_of(path: Path, start: Path | None = None) -> str:
    """Return what to call a run: its version folder, relative to where it was looked for.

    Example:
        >>> name_of(Path("logs", "version_0", "gradguard", "history-2.sqlite"), Path("logs"))
        'version_0 (history-2)'
    """
    folder = path.parent.parent if path.parent.name == FOLDER_NAME else path.parent
    name = "."
    if start is not None and folder.is_relative_to(start):
        name = folder.relative_to(start).as_posix()
    name = folder.resolve().name if name == "." else name
    return name if path.name == FILE_NAME else f"{name} ({path.stem})"


def locate(path: Path | str) -> Path:
    """Return the one file that a path stands for.

    Raises:
        HistoryError: There is none, there are several, or it is a remote address.
    """
    _refuse_remote(path)
    path = Path(path)
    if os.path.isfile(path):  # noqa: PTH113 - which answers where a Path raises
        return path
    if not os.path.isdir(path):  # noqa: PTH112 - the same
        msg = f"There is no file or folder {path}."
        raise HistoryError(msg)
    inside = [path] if path.name == FOLDER_NAME else []
    found = find_histories(inside[0] if inside else path)
    if not found:
        msg = f"There is no history beneath {path}: no {FOLDER_NAME}/{FILE_NAME}."
        raise HistoryError(msg)
    if len(found) > 1:
        found.sort(key=lambda file: file.stat().st_mtime, reverse=True)
        names = ", ".join(str(file) for file in found[:5]) + (", …" if len(found) > 5 else "")
        msg = f"There are {len(found)} histories beneath {path}; name one, latest first: {names}"
        raise HistoryError(msg)
    return found[0]


def _refuse_remote(path: Path | str) -> None:
    if "\0" in str(path):
        msg = f"{str(path)!r} is no path: it holds a zero."
        raise HistoryError(msg)
    if "://" in str(path):
        msg = f"{path} is a remote address; histories are read from local disks. Copy it first."
        raise HistoryError(msg)
