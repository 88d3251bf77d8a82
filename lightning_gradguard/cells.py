"""Gradients over time where the loop over time is the user's own.

In: cells that are called once per time step, be it `torch.nn.RNNCell`, ``GRUCell``, ``LSTMCell``
or a layer of a cell that the user wrote. Out: for each, sums of squares of the gradient of what it
returned at each call, on the device: the order of the calls is time.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_gradguard.devices import widest_dtype
from lightning_gradguard.order import is_ordinary_training

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["Cells"]


class Cells:
    """Watch what cells return while armed: one sequence per cell, the first.

    Args:
        cells: By name.
        shortest: Fewest time steps of a sequence.

    Attributes:
        unchecked: Cells that were seen but could not be profiled, with the reason.

    Cost:
        Nothing while not armed. On an armed step, one or two reductions per call.

    Example:
        >>> cell, state = nn.RNNCell(1, 2), None
        >>> cells = Cells({"cell": cell}, shortest=3)
        >>> cells.arm()
        >>> for x in torch.ones(5, 1, 1):
        ...     state = cell(x, state)
        >>> state.sum().backward()
        >>> cells.take()["cell"].shape
        torch.Size([5])
    """

    def __init__(self, cells: Mapping[str, nn.Module], *, shortest: int) -> None:
        self.unchecked: dict[str, str] = {}
        self._cells, self._shortest = dict(cells), shortest
        self._calls: dict[str, int] = {}
        self._ended: set[str] = set()
        self._squares: dict[str, dict[tuple[int, int], Tensor]] = {}
        self._handles: list[RemovableHandle] = []

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the cells."""
        return tuple(self._cells)

    def add(self, name: str, cell: nn.Module) -> None:
        """Watch one more, until it turns out not to be called in a loop."""
        self._cells[name] = cell

    def arm(self) -> None:
        """Watch from the next forward pass on."""
        self.disarm()
        self._calls.clear()
        self._ended.clear()
        self._squares.clear()
        for name, cell in self._cells.items():
            hook = cell.register_forward_hook(self._watcher(name), with_kwargs=True)
            self._handles.append(hook)

    def disarm(self) -> None:
        """Remove every hook; harmless when there is none."""
        while self._handles:
            self._handles.pop().remove()

    def take(self, modules: Container[str] | None = None) -> dict[str, Tensor]:
        """Return the sums of squares seen since armed, each ``(time,)`` float64, and disarm.

        Steps that no gradient came back to, such as those before a ``detach()``, are NaN.

        Args:
            modules: Names of the cells to take; None means all.
        """
        self.disarm()
        found = {}
        for name in [name for name in self._squares if modules is None or name in modules]:
            squares, count = self._squares.pop(name), self._calls[name]
            if not squares:
                continue
            if count >= self._shortest:
                found[name] = _joined(squares, count)
            elif isinstance(self._cells[name], nn.RNNCellBase):
                self.unchecked[name] = f"fewer than {self._shortest} time steps"
            else:
                del self._cells[name]
        return found

    def _watcher(self, name: str) -> Callable[..., None]:
        def watch(
            cell: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
        ) -> None:
            if not is_ordinary_training(cell) or name in self._ended or self._squares.get(name):
                return  # what comes after a backward pass is the next batch
            step = self._calls.get(name, 0)
            state = args[1] if len(args) > 1 else kwargs.get("hx")
            if isinstance(cell, nn.RNNCellBase) and step > 0 and not _is_carried(state):
                self._ended.add(name)  # another sequence begins, and one is enough
                return
            self._calls[name] = step + 1
            squares = self._squares.setdefault(name, {})
            for part, tensor in enumerate(_tensors(output)):
                if tensor.requires_grad:
                    note = partial(_note, squares, (step, part))
                    tensor.register_hook(note)  # type: ignore[no-untyped-call]  # torch's own gap

        return watch


def _tensors(state: object) -> list[Tensor]:
    parts = state if isinstance(state, (tuple, list)) else (state,)
    return [part for part in parts if isinstance(part, Tensor)]


def _is_carried(state: object) -> bool:
    """Whether a cell's state comes from its last call, with a gradient that goes back there."""
    return any(tensor.requires_grad for tensor in _tensors(state))


def _note(squares: dict[tuple[int, int], Tensor], place: tuple[int, int], grad: Tensor) -> None:
    # Widened first: early time steps reach 1e-30, and their squares must survive.
    squares[place] = grad.detach().to(widest_dtype(grad.device)).square().sum()


def _joined(squares: Mapping[tuple[int, int], Tensor], count: int) -> Tensor:
    """Return one sum per time step, over the parts of the state."""
    missing = next(iter(squares.values())).new_full((), torch.nan)
    parts: list[list[Tensor]] = [[] for _ in range(count)]
    for (step, _), square in squares.items():
        parts[step].append(square)
    return torch.stack([torch.stack(part).sum() if part else missing for part in parts])
