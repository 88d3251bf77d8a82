"""States of a training to go back to, kept in host memory.

In: a model, its optimizers and whatever else has a state. Out: the same, as they were some steps
ago. Several generations are kept, since faults are found late.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from lightning_gradguard import devices

__all__ = ["Generations", "Stateful"]

_Mark = tuple[int, int, int]

_log: Final = logging.getLogger(__name__)

_LAZY: Final = (UninitializedBuffer, UninitializedParameter)
_WHOLE: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Stateful(Protocol):
    """Anything with a state: a schedule, a gradient scaler, an average of the weights."""

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
        marks: For frozen parameters by name, how to tell whether they are still the same; while
            they are, states share one copy.
        trained: Shapes of the parameters in each group of each optimizer.
        optimizers: State of each optimizer, on the host.
        others: Everything else that has a state, and that state, on the host.
        extra: What the caller wanted to keep with it.
    """

    steps: Mapping[int, int]
    tensors: Mapping[str, Tensor]
    marks: Mapping[str, _Mark]
    trained: Sequence[Any]
    optimizers: Sequence[Any]
    others: Sequence[tuple[Stateful, Any]]
    extra: Any


class Generations:
    """Keep the latest states of a training.

    Args:
        model: Its parameters and buffers are kept.
        optimizers: Their states are kept.
        others: Returns schedules, scalers and the like, whose states are kept, too; asked anew
            each time, since they may change.
        most: How many states are kept; ``>= 1``.
        max_bytes: Most host memory for all of them; None is no limit. The oldest go first.

    Cost:
        Each state is a copy of everything but frozen parameters, of which all states share one
        while they stay the same; from a device it is made while the device goes on. To tell
        whether they do takes one read of them on the device, and one host sync.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> states = Generations(model, [])
        >>> states.keep({0: 7}, extra="seven")
        >>> _ = nn.init.constant_(model.weight, torch.nan)
        >>> states.restore_(before_step=8), model.weight.isnan().item()
        ('seven', False)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        others: Callable[[], Sequence[Stateful]] = tuple,
        *,
        most: int = 4,
        max_bytes: int | None = None,
    ) -> None:
        self._model, self._optimizers, self._others = model, optimizers, others
        self._max_bytes, self._has_warned = max_bytes, False
        self._kept: deque[_Generation] = deque(maxlen=most)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        """Host memory that all states take."""
        return _num_bytes([[kept.tensors, kept.optimizers, kept.others] for kept in self._kept])

    @property
    def is_outdated(self) -> bool:
        """Whether the optimizers train other parameters now than when the latest was kept."""
        return bool(self._kept) and not self._fits(self._kept[-1])

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
        marks = _marks_of_frozen(current)
        self._kept.append(
            _Generation(
                dict(steps),
                {name: self._copy_of(name, current[name], marks) for name in current},
                marks,
                self._trained(),
                [_to_host(optimizer.state_dict()) for optimizer in self._optimizers],
                [(other, _to_host(dict(other.state_dict()))) for other in self._others()],
                extra,
            )
        )
        self._make_room()

    def _copy_of(self, name: str, tensor: Tensor, marks: Mapping[str, _Mark]) -> Tensor:
        last = self._kept[-1] if self._kept else None
        if last is not None and name in marks and last.marks.get(name) == marks[name]:
            return last.tensors[name]
        copied: Tensor = _to_host(tensor)
        return copied

    def _make_room(self) -> None:
        """Forget the oldest states until the others fit into the memory."""
        if self._max_bytes is None or self.num_bytes <= self._max_bytes:
            return
        wanted, needed = len(self._kept), self.num_bytes
        while self._kept and self.num_bytes > self._max_bytes:
            self._kept.popleft()
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "gradguard: %d state(s) to go back to take %.3g GB, more than the %.3g GB that "
                "`Rollback(max_bytes=...)` allows: %d are kept%s",
                wanted,
                needed / 1e9,
                self._max_bytes / 1e9,
                len(self._kept),
                "." if self._kept else ", and going back is not possible.",
            )

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
        # The optimizers first: if one of them refuses, no weight has changed yet.
        for optimizer, saved in zip(self._optimizers, state.optimizers, strict=True):
            _load_(optimizer, saved)
        now = _tensors_of(self._model)
        for name, tensor in state.tensors.items():
            if name in now and now[name].shape == tensor.shape and not now[name].is_inference():
                now[name].copy_(tensor)
        current = self._others()
        for other, saved in state.others:
            if any(other is one for one in current):
                other.load_state_dict(copy.deepcopy(saved))
        while self._kept and self._kept[-1] is not state:
            self._kept.pop()
        return state.extra

    def _newest(self, before_step: int, optimizer_index: int) -> _Generation | None:
        for kept in reversed(self._kept):
            if kept.steps.get(optimizer_index, 0) <= before_step and self._fits(kept):
                return kept
        return None

    def _fits(self, state: _Generation) -> bool:
        """Whether the optimizers train parameters of the same shapes as they did then."""
        return self._trained() == state.trained

    def _trained(self) -> list[list[list[torch.Size]]]:
        return [
            [[parameter.shape for parameter in group["params"]] for group in optimizer.param_groups]
            for optimizer in self._optimizers
        ]


def _load_(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Take a state back; what has been added to the groups since, as schedules do, stays."""
    before = [dict(group) for group in optimizer.param_groups]
    # A copy: the optimizer would go on writing to what it is given.
    optimizer.load_state_dict(copy.deepcopy(dict(saved)))
    for group, old in zip(optimizer.param_groups, before, strict=True):
        for key in old.keys() - group.keys():
            group[key] = old[key]


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _marks_of_frozen(tensors: Mapping[str, Tensor]) -> dict[str, _Mark]:
    """Mark frozen parameters: where they are, how often they were written to, and their bits.

    The bits, since a teacher that follows the weights is mostly written to through ``.data``,
    which autograd does not count. What cannot be marked is left out.
    """
    places: dict[str, tuple[int, int]] = {}
    sums: list[Tensor] = []
    for name, tensor in tensors.items():
        if not isinstance(tensor, nn.Parameter) or tensor.requires_grad:
            continue
        try:
            place = tensor.data_ptr(), tensor._version  # noqa: SLF001 - torch has no other way to ask
            bits = tensor.detach().view(_WHOLE[tensor.element_size()]).sum(dtype=torch.int64)
        except (KeyError, RuntimeError):  # in inference mode nobody counts; others have no memory
            continue
        places[name] = place
        sums.append(bits if not sums else bits.to(sums[0].device))
    found = torch.stack(sums).tolist() if sums else []
    return {name: (*place, bits) for (name, place), bits in zip(places.items(), found, strict=True)}


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


def _num_bytes(value: Any, seen: set[int] | None = None) -> int:  # noqa: ANN401 - see above
    """Return the memory of all tensors, each counted once."""
    seen = set() if seen is None else seen
    if isinstance(value, Tensor):
        is_known = id(value) in seen
        seen.add(id(value))
        return 0 if is_known else value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value
    return sum(_num_bytes(p, seen) for p in parts) if isinstance(value, (dict, list, tuple)) else 0


def _wait() -> None:
    """Let copies from a device arrive."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
