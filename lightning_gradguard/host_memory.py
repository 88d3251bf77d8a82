"""How much memory there is on the host.

In: what the system says of itself. Out: a number of bytes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

__all__ = ["host_memory"]

_CONTAINER_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where Linux says what a container may have, by version 2 and 1 of its control groups."""


def host_memory() -> int | None:
    """Return the memory of this machine in bytes, or of this container if that is less.

    None where the system does not say.

    Example:
        >>> host_memory() is None or host_memory() > 2**20
        True
    """
    try:
        sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, OSError, ValueError):  # not on Windows
        return None
    for path in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max", which is no limit
            sizes.append(int(path.read_text(encoding="utf-8")))
    return min(sizes)
