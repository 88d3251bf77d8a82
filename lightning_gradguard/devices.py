"""What a device can do.

In: a device. Out: a fact about it. Kept in one place, so that no other file has to know the
exceptions.
"""

from __future__ import annotations

import torch

__all__ = ["is_host", "widest_dtype"]


def is_host(device: torch.device) -> bool:
    """Whether a number on this device can be read without waiting for it.

    Example:
        >>> is_host(torch.device("cpu")), is_host(torch.device("cuda"))
        (True, False)
    """
    return device.type == "cpu"


def widest_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on Apple's GPUs, which have no wider type.

    Example:
        >>> widest_dtype(torch.device("cpu")), widest_dtype(torch.device("mps"))
        (torch.float64, torch.float32)
    """
    return torch.float32 if device.type == "mps" else torch.float64
