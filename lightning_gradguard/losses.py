"""The loss of one optimizer step, which several backward passes may share.

In: what goes into each ``backward``. Out: their sum, without any gradient scale, where it lies.
Asks the device for nothing.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["StepLoss"]


class StepLoss:
    """Add up losses until somebody takes the sum.

    Example:
        >>> import torch
        >>> loss = StepLoss()
        >>> loss.add(torch.tensor(8.0), scale=torch.tensor(4.0))
        >>> loss.add(torch.tensor([1.0, 2.0]))  # not yet reduced: its mean
        >>> loss.take(), loss.take()
        (tensor(3.5000), None)
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def add(self, loss: Tensor, scale: Tensor | None = None) -> None:
        """Take in the loss of one backward pass.

        Args:
            loss: As it goes into ``backward``.
            scale: What a gradient scaler multiplied it by, shape ``()``.
        """
        # A copy, since a captured graph writes its next loss to the same place.
        value = loss.detach().clone() if loss.dim() == 0 else loss.detach().mean()
        value = value if scale is None else value / scale
        self._sum = value if self._sum is None else self._sum + value

    def take(self) -> Tensor | None:
        """Return the sum and begin anew; None if there was no loss."""
        total, self._sum = self._sum, None
        return total
