"""Whether a folder is on a disk of another machine.

In: a folder. Out: yes or no. A write-ahead log needs memory that all its users share, which a
network's file system does not give.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["is_on_network"]

_NETWORK: Final = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "afs",
    "glusterfs",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.gcsfuse",
}


def is_on_network(folder: Path) -> bool:
    """Whether a folder is on a disk of another machine, where a write-ahead log is unsafe."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    here, best, kind = str(folder.resolve()), "", ""
    for line in mounts.splitlines():
        parts = line.split()
        if len(parts) < 3:
            continue
        root = parts[1].replace("\\040", " ").rstrip("/")
        if (here + "/").startswith(root + "/") and len(root) >= len(best):
            best, kind = root, parts[2]
    return kind in _NETWORK
