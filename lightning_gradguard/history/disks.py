"""Whether a folder is on a disk of another machine.

In: a folder. Out: yes or no. A write-ahead log needs memory that all its users share, which a
network's file system does not give.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

__all__ = ["is_on_network"]

_MOUNTS: Final = Path("/proc/self/mounts")
_NETWORK: Final = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "virtiofs",
    "vboxsf",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "afs",
    "glusterfs",
    "panfs",
    "pvfs2",
    "wekafs",
}


def is_on_network(folder: Path) -> bool:
    """Whether a folder is on a disk of another machine, where a write-ahead log is unsafe."""
    try:
        mounts = os.fsdecode(_MOUNTS.read_bytes())
    except OSError:
        return False
    here, best, kind = str(folder.resolve()), "", ""
    # Only what Linux splits at: names may hold all other kinds of space.
    for line in mounts.split("\n"):
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        root = _unescaped(parts[1]).rstrip("/")
        if (here + "/").startswith(root + "/") and len(root) >= len(best):
            best, kind = root, parts[2]
    # What a program of somebody's serves is most often elsewhere, and to be careful costs little.
    return kind in _NETWORK or kind.startswith("fuse.")


def _unescaped(name: str) -> str:
    r"""Undo what Linux does to spaces, tabs, ends of lines and backslashes in a name.

    Example:
        >>> _unescaped(r"/a\040b\134c")
        '/a b\\c'
    """
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)
