"""What a device can count in.

In: a device. Out: a dtype. Kept in one place, so that no other file has to know the exception.
"""

from __future__ import annotations

import torch

__all__ = ["widest_dtype"]


def widest_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on Apple's GPUs, which have no wider type.

    Example:
        >>> widest_dtype(torch.device("cpu")), widest_dtype(torch.device("mps"))
        (torch.float64, torch.float32)
    """
    return torch.float32 if device.type == "mps" else torch.float64
