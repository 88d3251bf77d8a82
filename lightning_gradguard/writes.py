"""How often a tensor was written to, as autograd counts it."""

from __future__ import annotations

from torch import Tensor

__all__ = ["num_writes"]


def num_writes(tensor: Tensor) -> int:
    """Return how often a tensor, or another view of its memory, was written to in place.

    Always 0 for one that was made in inference mode, where nobody counts.

    Example:
        >>> import torch
        >>> tensor = torch.zeros(2)
        >>> num_writes(tensor), num_writes(tensor.add_(1.0))
        (0, 1)
    """
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch has no other way to ask
