"""Averages of the weights that callbacks keep, as parts that have a state.

In: a callback of Lightning's that averages weights. Out: its average as it was some steps ago. An
average that had not begun then is what the weights were: else it would end as it was made, which
is untrained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["Average"]


@dataclass(frozen=True)
class Average:
    """An average, equal to any other of the same callback.

    Attributes:
        callback: Keeps it, and counts what went into it where the average does not.
        average: The averaged model.
        model: The model that is trained.

    Cost:
        Asks the device whether it has begun.
    """

    callback: Any
    average: nn.Module
    model: nn.Module

    @property
    def _count(self) -> Tensor | None:
        counts = self.average if isinstance(self.average, AveragedModel) else self.callback
        count: Tensor | None = getattr(counts, "n_averaged", None)
        return count

    def state_dict(self) -> dict[str, Any]:
        """Return the average and how much went into it; the weights before anything did."""
        count = 0 if self._count is None else int(self._count)
        return {"count": count, "tensors": _tensors_of(self.average if count else self.model)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        if self._count is not None:
            self._count.fill_(state["count"])
        for name, tensor in _tensors_of(self.average).items():
            saved = state["tensors"].get(name)
            if saved is not None and saved.shape == tensor.shape:
                tensor.copy_(saved)


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    inner = model.module if isinstance(model, AveragedModel) else model
    named = [*inner.named_parameters(), *inner.named_buffers()]
    return {name: tensor.detach() for name, tensor in named}
