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
from typing import Any, Final, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from lightning_gradguard.actions.host import Mark, marks_of_frozen, num_bytes, to_host, wait
from lightning_gradguard.actions.writing import write_

__all__ = ["Generations", "Stateful"]

_log: Final = logging.getLogger(__name__)

_NONE_KEPT: Final = "none is kept, and going back is not possible"

_LAZY: Final = (UninitializedBuffer, UninitializedParameter)


_Trained: TypeAlias = Sequence[Sequence[Sequence[tuple[Tensor, torch.Size]]]]


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
        trained: The parameters in each group of each optimizer, and their shapes.
        optimizers: State of each optimizer, on the host.
        others: Everything else that has a state, and that state, on the host.
        extra: What the caller wanted to keep with it.
    """

    steps: Mapping[int, int]
    tensors: Mapping[str, Tensor]
    marks: Mapping[str, Mark]
    trained: _Trained
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
        return self._num_bytes_with(())

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
        if self.is_outdated:
            self._kept.clear()
        marks = marks_of_frozen(current)
        shared = self._still_the_same(marks)
        optimizers = [optimizer.state_dict() for optimizer in self._optimizers]
        others = [(other, dict(other.state_dict())) for other in self._others()]
        if not self._make_room((current | shared, optimizers, others)):
            return
        copied = {name: to_host(current[name]) for name in current if name not in shared}
        others = [(other, to_host(state)) for other, state in others]
        optimizers = to_host(optimizers)
        self._kept.append(
            _Generation(
                dict(steps),
                {**shared, **copied},
                marks,
                self._trained(),
                optimizers,
                others,
                extra,
            )
        )

    def _still_the_same(self, marks: Mapping[str, Mark]) -> dict[str, Tensor]:
        """Return the copies of frozen parameters that the latest state has already."""
        if not self._kept:
            return {}
        last = self._kept[-1]
        same = [name for name, mark in marks.items() if last.marks.get(name) == mark]
        return {name: last.tensors[name] for name in same}

    def _make_room(self, parts: object) -> bool:
        """Forget the oldest states until one more fits, and tell whether it does.

        Before it is copied: where memory is short, a copy too many is what ends the run.
        """
        most, limit = self._kept.maxlen, self._max_bytes
        needed = num_bytes(parts)
        does_fit = limit is None or needed <= limit
        if does_fit and len(self._kept) == most:
            self._kept.popleft()
        if limit is None:
            return True
        bites = self._num_bytes_with(parts) > limit
        while does_fit and self._num_bytes_with(parts) > limit:
            self._kept.popleft()
        if bites and not self._has_warned:
            self._has_warned = True
            left = len(self._kept) + does_fit
            _log.warning(
                "gradguard: a state to go back to takes %.3g GB, and %.3g GB are allowed "
                "(`Rollback(max_bytes=...)`): %s.",
                needed / 1e9,
                limit / 1e9,
                f"{left} of {most} are kept" if left else _NONE_KEPT,
            )
        return does_fit

    def _num_bytes_with(self, parts: object) -> int:
        kept = [[kept.tensors, kept.optimizers, kept.others] for kept in self._kept]
        return num_bytes([kept, parts])

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
        wait()
        self._load_(state)  # first: it may be refused
        now = _tensors_of(self._model)
        for name, tensor in state.tensors.items():
            if name in now and now[name].shape == tensor.shape:
                write_(now[name], tensor)
        while self._kept and self._kept[-1] is not state:
            self._kept.pop()
        return state.extra

    def _newest(self, before_step: int, optimizer_index: int) -> _Generation | None:
        for kept in reversed(self._kept):
            if kept.steps.get(optimizer_index, 0) <= before_step and self._fits(kept):
                return kept
        return None

    def _fits(self, state: _Generation) -> bool:
        """Whether the optimizers train what they trained then, and of the same shapes."""
        return _key(self._trained()) == _key(state.trained)

    def _trained(self) -> _Trained:
        return [
            [[(p, p.shape) for p in group["params"]] for group in optimizer.param_groups]
            for optimizer in self._optimizers
        ]

    def _load_(self, state: _Generation) -> None:
        """Give everything that loads itself its state: all of it, or nothing."""
        optimizers, current = list(self._optimizers), self._others()
        others = [(other, saved) for other, saved in state.others if other in current]
        before = [(part, part.state_dict()) for part in [*optimizers, *(o for o, _ in others)]]
        try:
            for optimizer, saved in zip(optimizers, state.optimizers, strict=True):
                _load_optimizer_(optimizer, saved)
            for other, saved in others:
                other.load_state_dict(copy.deepcopy(saved))
        except Exception:
            for part, was in before:
                part.load_state_dict(was)
            raise


def _key(trained: _Trained) -> list[Any]:
    return [[[(id(p), shape) for p, shape in group] for group in one] for one in trained]


def _load_optimizer_(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Take a state back; what has been added to the groups since, as schedules do, stays."""
    before = [dict(group) for group in optimizer.param_groups]
    # A copy: the optimizer would go on writing to what it is given.
    optimizer.load_state_dict(copy.deepcopy(dict(saved)))
    for group, old in zip(optimizer.param_groups, before, strict=True):
        for key in old.keys() - group.keys():
            group[key] = old[key]


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in named.items() if not tensor.is_meta}
