"""What a clipper has learned of each segment, on the device and in a checkpoint.

In: names of segments. Out: one column of numbers for each, which moves with its segment when
parameters come and go. Reads no device but to save.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Memory"]


class Memory:
    """Named rows of numbers, one column per segment.

    Args:
        rows: For each name, how many rows it has and what a new segment starts with.

    Attributes:
        steps: Steps learned from, of all segments together.

    Example:
        >>> memory = Memory({"mean": (1, 0.0)})
        >>> memory.align(["a"], like=torch.zeros(1))
        >>> memory["mean"] += 3.0
        >>> memory.align(["b", "a"], like=torch.zeros(2))
        >>> memory["mean"].tolist()
        [[0.0, 3.0]]
    """

    def __init__(self, rows: Mapping[str, tuple[int, float]]) -> None:
        self.steps = 0
        self._rows = dict(rows)
        self._names: tuple[str, ...] = ()
        self._numbers: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._numbers[name]

    def __setitem__(self, name: str, numbers: Tensor) -> None:
        self._numbers[name] = numbers

    def align(self, names: Sequence[str], *, like: Tensor) -> None:
        """Have one column for each of these segments, in this order.

        Args:
            names: Of the segments.
            like: A tensor of the dtype and device to keep them in.
        """
        if self._names == tuple(names) and self._is_at_home(like):
            return
        place = {name: i for i, name in enumerate(self._names)}
        for key, (count, start) in self._rows.items():
            numbers = like.new_full((count, len(names)), start)
            known = [(new, place[name]) for new, name in enumerate(names) if name in place]
            if known:
                new, old = map(list, zip(*known, strict=True))
                numbers[:, new] = self._numbers[key].to(like)[:, old]
            self._numbers[key] = numbers
        self._names = tuple(names)

    def _is_at_home(self, like: Tensor) -> bool:
        kept = next(iter(self._numbers.values()))
        return kept.device == like.device and kept.dtype == like.dtype

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as JSON types: non-finite numbers are None."""
        return {
            "steps": self.steps,
            "names": list(self._names),
            "numbers": {
                key: [[_plain(x) for x in row] for row in numbers.tolist()]
                for key, numbers in self._numbers.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            ValueError: It was saved with another window.
        """
        numbers = {
            key: torch.tensor(
                [[torch.nan if x is None else x for x in row] for row in rows],
                dtype=torch.float64,
            ).reshape(len(rows), len(state["names"]))
            for key, rows in state["numbers"].items()
        }
        for key, (count, _) in self._rows.items():
            if key in numbers and len(numbers[key]) != count:
                msg = f"`{key}` must have {count} rows, got {len(numbers[key])}: another window?"
                raise ValueError(msg)
        self.steps, self._names = state["steps"], tuple(state["names"])
        self._numbers = numbers


def _plain(number: float) -> float | None:
    return number if number - number == 0.0 else None
