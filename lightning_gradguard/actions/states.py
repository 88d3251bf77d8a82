"""States of a training to go back to, kept in host memory.

In: a model, its optimizers and whatever else has a state. Out: the same, as they were some steps
ago. Several generations are kept, since faults are found late.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from lightning_gradguard import devices

__all__ = ["Generations", "Stateful"]

_LAZY: Final = (UninitializedBuffer, UninitializedParameter)


class Stateful(Protocol):
    """Anything with a state: a schedule, a gradient scaler."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return it."""
        ...

    def load_state_dict(self, state_dict: Any) -> object:  # noqa: ANN401 - everybody's own
        """Take it."""
        ...


@dataclass(frozen=True, eq=False)
class _Generation:
    """One state.

    Attributes:
        steps: Completed steps of each optimizer.
        tensors: Parameters and buffers by name, on the host.
        optimizers: State of each optimizer, on the host.
        others: State of everything else.
        extra: What the caller wanted to keep with it.
        num_bytes: Host memory that it takes.
    """

    steps: Mapping[int, int]
    tensors: Mapping[str, Tensor]
    optimizers: Sequence[Any]
    others: Sequence[Any]
    extra: Any
    num_bytes: int


class Generations:
    """Keep the latest states of a training.

    Args:
        model: Its parameters and buffers are kept.
        optimizers: Their states are kept.
        others: Schedules and scalers, whose states are kept, too.
        most: How many states are kept; ``>= 1``.
        max_bytes: Most host memory for all of them; None is no limit. The oldest go first.

    Cost:
        Each state is a copy of everything; from a device it is made while the device goes on.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> states = Generations(model, [], [])
        >>> states.keep({0: 7}, extra="seven")
        >>> _ = nn.init.constant_(model.weight, torch.nan)
        >>> states.restore_(before_step=8), model.weight.isnan().item()
        ('seven', False)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        others: Sequence[Stateful],
        *,
        most: int = 4,
        max_bytes: int | None = None,
    ) -> None:
        self._model, self._optimizers, self._others = model, optimizers, others
        self._max_bytes = max_bytes
        self._kept: deque[_Generation] = deque(maxlen=most)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        """Host memory that all states take."""
        return sum(generation.num_bytes for generation in self._kept)

    @torch.no_grad()
    def keep(self, steps: Mapping[int, int], *, extra: Any = None) -> None:  # noqa: ANN401 - the caller's own
        """Keep the state as it is now.

        Args:
            steps: Completed steps of each optimizer.
            extra: What to hand back with it.
        """
        current = _tensors_of(self._model)
        if any(isinstance(tensor, _LAZY) for tensor in current.values()):
            return  # lazy layers have no state yet
        tensors = {name: _to_host(tensor) for name, tensor in current.items()}
        optimizers = [_to_host(optimizer.state_dict()) for optimizer in self._optimizers]
        size = _num_bytes(tensors) + _num_bytes(optimizers)
        if self._max_bytes is not None and size > self._max_bytes:
            return
        others = [copy.deepcopy(dict(other.state_dict())) for other in self._others]
        self._kept.append(_Generation(dict(steps), tensors, optimizers, others, extra, size))
        while self._max_bytes is not None and self.num_bytes > self._max_bytes:
            self._kept.popleft()

    def find(self, before_step: int, optimizer_index: int = 0) -> bool:
        """Tell whether there is a state from before a step."""
        return self._newest(before_step, optimizer_index) is not None

    @torch.no_grad()
    def restore_(self, before_step: int, optimizer_index: int = 0) -> Any:  # noqa: ANN401 - see `keep`
        """Go back to the newest state from before a step; younger ones are forgotten.

        Args:
            before_step: The first step that is not to be trusted.
            optimizer_index: Whose steps these are.

        Returns:
            What was kept with the state.

        Raises:
            LookupError: There is none that old.
        """
        state = self._newest(before_step, optimizer_index)
        if state is None:
            msg = f"No state from before step {before_step} was kept."
            raise LookupError(msg)
        _wait()
        now = _tensors_of(self._model)
        for name, tensor in state.tensors.items():
            if name in now and now[name].shape == tensor.shape:
                now[name].copy_(tensor)
        for optimizer, saved in zip(self._optimizers, state.optimizers, strict=True):
            # A copy: the optimizer would go on writing to what it is given.
            optimizer.load_state_dict(copy.deepcopy(saved))
        for other, saved in zip(self._others, state.others, strict=True):
            other.load_state_dict(copy.deepcopy(saved))
        while self._kept and self._kept[-1] is not state:
            self._kept.pop()
        return state.extra

    def _newest(self, before_step: int, optimizer_index: int) -> _Generation | None:
        for kept in reversed(self._kept):
            if kept.steps.get(optimizer_index, 0) <= before_step:
                return kept
        return None


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _to_host(value: Any) -> Any:  # noqa: ANN401 - optimizers keep what they like
    if isinstance(value, Tensor):
        value = value.detach()
        if devices.is_host(value.device):
            return value.clone()
        pinned = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
        return pinned.copy_(value, non_blocking=True)
    if isinstance(value, dict):
        return {key: _to_host(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_host(item) for item in value)
    return copy.deepcopy(value)


def _num_bytes(value: Any) -> int:  # noqa: ANN401 - see above
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_num_bytes, value.values()))
    return sum(map(_num_bytes, value)) if isinstance(value, (list, tuple)) else 0


def _wait() -> None:
    """Let copies from a device arrive."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
