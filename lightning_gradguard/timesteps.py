"""Gradients over time: the gradient of a recurrent layer's input at each time step.

In: a model with `torch.nn.RNN`, ``GRU`` or ``LSTM``, or their cells (`cells.py`). Out: for each
such layer, sums of squares per time step, on the device. Gradients of recurrent weights add up all
time steps, so they look healthy while the early steps have long been forgotten; this is where it
shows.

The user's batch is never marked as requiring gradients: the layer is handed a view of it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from lightning_gradguard.cells import Cells
from lightning_gradguard.devices import widest_dtype
from lightning_gradguard.order import is_compiled, is_ordinary_training, reachable
from lightning_gradguard.scope import ROOT, clean_name, is_matrix

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["TimeSteps"]

_SHORTEST: Final = 8
"""Below this many time steps, a first and a last quarter mean nothing."""


class TimeSteps:
    """Watch the inputs of recurrent layers while armed.

    Args:
        model: Looked through once for recurrent layers.
        watched: Parameters in scope; a layer with none of them is left out. None means all.

    Cost:
        Nothing while not armed. On an armed step: the gradient of the first recurrent
        layer's input, which training itself does not need, and one reduction per layer.

    Example:
        >>> import torch
        >>> rnn = nn.RNN(1, 4, batch_first=True)
        >>> time_steps = TimeSteps(rnn)
        >>> time_steps.arm()
        >>> rnn(torch.ones(2, 9, 1))[0][:, -1].sum().backward()
        >>> time_steps.take()["(root)"].shape
        torch.Size([9])
    """

    def __init__(self, model: nn.Module, watched: Iterable[nn.Parameter] | None = None) -> None:
        self._unchecked: dict[str, str] = {}
        self._layers: dict[str, nn.RNNBase] = {}
        self._others: dict[str, nn.Module] = {}
        cells: dict[str, nn.RNNCellBase] = {}
        ids = None if watched is None else {id(parameter) for parameter in watched}
        for name, module in reachable(model):
            in_scope = ids is None or any(id(p) in ids for p in module.parameters())
            if not in_scope or is_compiled(module):
                continue
            if isinstance(module, nn.RNNBase):
                self._add(clean_name(name) or ROOT, module)
            elif isinstance(module, nn.RNNCellBase):
                cells[clean_name(name) or ROOT] = module
            elif any(is_matrix(p) for p in module.parameters(recurse=False)):
                self._others[clean_name(name) or ROOT] = module
        self._cells = Cells(cells, shortest=_SHORTEST)
        self._squares: dict[str, Tensor] = {}
        self._called: set[str] = set()
        self._handles: list[RemovableHandle] = []

    def _add(self, name: str, layer: nn.RNNBase) -> None:
        if layer.bidirectional:
            self._unchecked[name] = "bidirectional: either end is near the loss"
        else:
            self._layers[name] = layer

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that can be profiled."""
        return (*self._layers, *self._cells.layers)

    @property
    def unchecked(self) -> dict[str, str]:
        """Layers that were seen but could not be profiled, with the reason."""
        return {**self._unchecked, **self._cells.unchecked}

    def add_loops(self, counts: Mapping[str, int]) -> None:
        """Watch also layers of which a user's own loop makes a cell.

        Args:
            counts: How often modules were called in the first step.
        """
        for name, module in self._others.items():
            if counts.get(name, 0) >= _SHORTEST:
                self._cells.add(name, module)
        self._others.clear()

    def arm(self) -> None:
        """Watch from the next forward pass on."""
        self.disarm()
        self._called.clear()
        self._squares.clear()
        for name, layer in self._layers.items():
            if layer._forward_hooks:  # noqa: SLF001 - torch has no other way to ask
                # Somebody's hook sees the input and may not expect that it requires gradients.
                self._unchecked[name] = "it has forward hooks of its own"
                continue
            hook = self._watcher(name)
            handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
            self._handles.append(handle)
        self._cells.arm()

    def disarm(self) -> None:
        """Remove every hook; harmless when there is none."""
        while self._handles:
            self._handles.pop().remove()
        self._cells.disarm()

    def take(self, modules: Container[str] | None = None) -> dict[str, Tensor]:
        """Return the sums of squares seen since armed, each ``(time,)`` float64, and disarm.

        Args:
            modules: Names of the layers to take, usually those of one optimizer; None means all.
        """
        self.disarm()
        names = [name for name in self._squares if modules is None or name in modules]
        found = {name: self._squares.pop(name) for name in names}
        return {**found, **self._cells.take(modules)}

    def _watcher(self, name: str) -> Callable[..., Any]:
        def watch(
            layer: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            sequence = args[0] if args else kwargs.get("input")
            if not isinstance(sequence, Tensor):
                self._unchecked[name] = "packed sequence"
                return None
            if not (_is_trained(layer, sequence) and sequence.is_floating_point()):
                return None
            if name in self._called:
                self._unchecked[name] = "called several times in one batch"
                return None
            self._called.add(name)
            if sequence.shape[_time_dim(layer, sequence)] < _SHORTEST:
                self._unchecked[name] = f"fewer than {_SHORTEST} time steps"
                return None
            watched = self._watched(sequence, name, time_dim=_time_dim(layer, sequence))
            if args:
                return (watched, *args[1:]), kwargs
            return args, {**kwargs, "input": watched}

        return watch

    def _watched(self, sequence: Tensor, name: str, *, time_dim: int) -> Tensor:
        """Return the same values as a tensor whose gradient reports to us."""
        if sequence.requires_grad:
            watched = sequence.view_as(sequence)
        else:
            watched = sequence.detach().requires_grad_()
        others = [dim for dim in range(sequence.dim()) if dim != time_dim]

        def report(gradient: Tensor) -> None:
            # Widened first: early time steps reach 1e-30, and their squares must survive.
            wide = gradient.detach().to(widest_dtype(gradient.device))
            self._squares[name] = wide.square().sum(dim=others)

        watched.register_hook(report)  # type: ignore[no-untyped-call]  # torch's own gap
        return watched


def _is_trained(layer: nn.RNNBase, sequence: Tensor) -> bool:
    """Whether gradients flow here anyway: what is frozen must not begin to require them."""
    if not is_ordinary_training(layer):
        return False
    return sequence.requires_grad or any(p.requires_grad for p in layer.parameters())


def _time_dim(layer: nn.RNNBase, sequence: Tensor) -> int:
    return 1 if layer.batch_first and sequence.dim() == 3 else 0
