"""Where histories are.

In: what a person named. Out: files. Opens none of them.
"""

from __future__ import annotations

import os
from pathlib import Path

from lightning_gradguard.errors import HistoryError
from lightning_gradguard.history.tables import FILE_NAME, FOLDER_NAME

__all__ = ["find_histories", "locate", "name_of", "next_free"]


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
            found += [
                Path(here, name)
                for name in names
                if (name == FILE_NAME or (name.startswith("history-") and name.endswith(".sqlite")))
                and Path(here, name).is_file()
            ]
    return sorted(found)


def next_free(path: Path) -> Path:
    """Return the path, or with a number if there is a file already.

    Example:
        >>> next_free(Path("nowhere", "history.sqlite")).name
        'history.sqlite'
    """
    number, found = 2, path
    while found.exists():
        found, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return found


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
    if path.is_file():
        return path
    if not path.is_dir():
        msg = f"There is no file or folder {path}."
        raise HistoryError(msg)
    inside = [path] if path.name == FOLDER_NAME else []
    found = find_histories(inside[0] if inside else path)
    if not found:
        msg = f"There is no history beneath {path}: no {FOLDER_NAME}/{FILE_NAME}."
        raise HistoryError(msg)
    if len(found) > 1:
        names = ", ".join(str(file) for file in found[:5]) + (", …" if len(found) > 5 else "")
        msg = f"There are {len(found)} histories beneath {path}; name one of them: {names}"
        raise HistoryError(msg)
    return found[0]


def _refuse_remote(path: Path | str) -> None:
    if "://" in str(path):
        msg = f"{path} is a remote address; histories are read from local disks. Copy it first."
        raise HistoryError(msg)
