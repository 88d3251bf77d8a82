"""Write to a tensor of the user's that may be of an odd kind.

In: a tensor, and what is to be in it. Out: the tensor, written to where anybody could.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["write_"]


def write_(tensor: Tensor, values: Tensor) -> None:
    """Copy values into a tensor of the same shape.

    One that was made in inference mode is left alone: nobody can have written to it since.

    Example:
        >>> repeated = torch.zeros(1).expand(3)
        >>> write_(repeated, torch.ones(3)), repeated.tolist()
        (None, [1.0, 1.0, 1.0])
    """
    if tensor.is_inference():
        return
    if tensor.layout is torch.strided:
        for dim, stride in enumerate(tensor.stride()):
            if stride == 0 and tensor.shape[dim] > 1:  # the same memory, several times
                tensor, values = tensor.narrow(dim, 0, 1), values.narrow(dim, 0, 1)
    tensor.copy_(values)
