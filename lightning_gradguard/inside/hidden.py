"""Gradients with respect to the hidden states of recurrent layers, in the steps of a training.

In: a model with `torch.nn.RNN`, ``GRU`` or ``LSTM``. Out: for each layer and direction, sums of
squares at borders in time, on the device. What went through a layer is kept from its forward pass
to the moment before the update; then `replay` runs it again, and all is let go.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lightning_gradguard.devices import widest_dtype
from lightning_gradguard.inside.activations import Site
from lightning_gradguard.inside.functions import look_at
from lightning_gradguard.inside.replay import Borders, Passage, gates, hidden_gradients
from lightning_gradguard.inside.safely import Failures
from lightning_gradguard.order import is_compiled, is_ordinary_training, reachable
from lightning_gradguard.scope import ROOT, clean_name

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["HiddenStates"]

_MOST_SEQUENCES: Final = 8
_FORWARDS: Final = {kind.forward for kind in (nn.RNN, nn.GRU, nn.LSTM)}


@dataclass(eq=False)
class _Seen:
    """What has gone through a layer so far."""

    sequence: Tensor
    states: tuple[Tensor, ...]
    results: int
    gradients: dict[int, Tensor] = field(default_factory=dict)

    def passage(self) -> Passage:
        whole, *ends = (self.gradients.get(place) for place in range(self.results))
        return Passage(self.sequence, self.states, whole, tuple(ends))


class HiddenStates:
    """Watch what goes through recurrent layers while armed.

    Of a batch, the first eight sequences are looked at.

    Args:
        model: Looked through once for recurrent layers.
        watched: Parameters in scope; a layer with none of them is left out. None means all.
        chunks: Borders in time, evenly spread.
        failures: Told of what goes wrong in a hook.

    Attributes:
        unchecked: Layers that were seen but could not be profiled, with the reason.

    Cost:
        Nothing while not armed. On an armed step, for eight sequences, a copy of what goes
        through the layers, and two and a half times their forward and backward pass.

    Example:
        >>> rnn = nn.RNN(1, 4, batch_first=True)
        >>> hidden = HiddenStates(rnn, chunks=3)
        >>> hidden.arm()
        >>> rnn(torch.ones(2, 9, 1))[0][:, -1].sum().backward()
        >>> hidden.take()["(root)/l0"][0].tolist()  # the time steps at the borders
        [2.0, 5.0, 8.0]
    """

    def __init__(
        self,
        model: nn.Module,
        watched: Iterable[nn.Parameter] | None = None,
        *,
        chunks: int = 8,
        failures: Failures | None = None,
    ) -> None:
        self.unchecked: dict[str, str] = {}
        self._chunks, self._failures = chunks, failures or Failures()
        self._layers: dict[str, nn.RNNBase] = {}
        ids = None if watched is None else {id(parameter) for parameter in watched}
        for name, module in reachable(model):
            if not isinstance(module, nn.RNNBase) or is_compiled(module):
                continue
            if ids is not None and not any(id(p) in ids for p in module.parameters()):
                continue
            clean = clean_name(name) or ROOT
            if type(module).forward in _FORWARDS:
                self._layers[clean] = module
            else:
                self.unchecked[clean] = "its class has a forward of its own"
        self._seen: dict[str, _Seen] = {}
        self._gates: dict[Site, dict[str, Tensor]] = {}
        self._handles: list[RemovableHandle] = []

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that can be profiled."""
        return tuple(self._layers)

    def arm(self) -> None:
        """Watch from the next forward pass on."""
        self.disarm()
        self._seen.clear()
        for name, layer in self._layers.items():
            hook = layer.register_forward_hook(self._watcher(name), with_kwargs=True)
            self._handles.append(hook)

    def disarm(self) -> None:
        """Remove every hook; harmless when there is none."""
        while self._handles:
            self._handles.pop().remove()

    def forget(self) -> None:
        """Disarm, and let go of what has been seen."""
        self.disarm()
        self._seen.clear()
        self._gates.clear()

    def take(self, modules: Container[str] | None = None) -> dict[str, Tensor]:
        """Return what was seen since armed, and disarm.

        Args:
            modules: Names of the layers to take, usually those of one optimizer; None means all.

        Returns:
            By layer and run, such as ``encoder/l0``, ``(3, borders)`` in float64: time steps; sums
            of squares of the gradient with respect to the state; the same for the loss of the last
            part of the sequence alone, NaN where there is a direction back.
        """
        self.disarm()
        found: dict[str, Tensor] = {}
        for name in [name for name in self._seen if modules is None or name in modules]:
            seen = self._seen.pop(name)
            if seen.gradients:
                passage = seen.passage()
                found.update(self._replayed(name, passage))
                self._gates.update(_looked_at(name, gates(self._layers[name], passage)))
        return found

    def take_gates(self) -> dict[Site, dict[str, Tensor]]:
        """Return what the gates of the layers taken last put out, see `functions.look_at`."""
        found, self._gates = self._gates, {}
        return found

    def _replayed(self, name: str, passage: Passage) -> dict[str, Tensor]:
        layer = self._layers[name]
        whole, late = hidden_gradients(layer, passage, chunks=self._chunks)
        rows = {}
        for one, other in zip(whole, late, strict=True):
            squares = [_squares(one), _squares(other)]
            if layer.bidirectional:
                squares[1] = torch.full_like(squares[1], torch.nan)
            steps = torch.tensor(one.steps).to(squares[0], non_blocking=True)
            rows[f"{name}/{one.name}"] = torch.stack([steps, *squares])
        return rows

    def _watcher(self, name: str) -> Callable[..., None]:
        def watch(
            layer: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
        ) -> None:
            sequence = args[0] if args else kwargs.get("input")
            state = args[1] if len(args) > 1 else kwargs.get("hx")
            if isinstance(sequence, PackedSequence):
                self.unchecked[name] = "packed sequence"
            elif isinstance(sequence, Tensor) and is_ordinary_training(layer):
                self._keep(name, layer, sequence, state, output)

        return self._failures.caught(watch)

    def _keep(
        self, name: str, layer: nn.RNNBase, sequence: Tensor, state: object, output: object
    ) -> None:
        if name in self._seen:
            self.unchecked[name] = "called several times in one batch"
            return
        results = _tensors(output)
        if not results[0].requires_grad:
            return
        if layer.dropout and layer.num_layers > 1:
            self.unchecked[name] = "dropout between its layers: replayed without"
        at = 0 if layer.batch_first else 1
        states = tuple(_some(one, 1).clone() for one in _tensors(state))
        seen = _Seen(_some(sequence, at).clone(), states, len(results))
        self._seen[name] = seen
        for place, tensor in enumerate(results):
            keep = self._failures.caught(_keeper(seen, place, 1 if place else at))
            tensor.register_hook(keep)  # type: ignore[no-untyped-call]  # torch's own gap


def _looked_at(
    name: str, found: dict[str, dict[str, Tensor]]
) -> Iterator[tuple[Site, dict[str, Tensor]]]:
    """Yield what is told of each gate."""
    for call, of_run in enumerate(found.values()):
        for gate, output in of_run.items():
            yield Site(gate, name, call, name), look_at("sigmoid", output, output.dim() - 1)


def _keeper(seen: _Seen, place: int, dim: int) -> Callable[[Tensor], None]:
    def keep(gradient: Tensor) -> None:
        seen.gradients[place] = _some(gradient, dim).clone()

    return keep


def _tensors(value: object) -> list[Tensor]:
    """Return the tensors of nested tuples, in turn."""
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return [value] if isinstance(value, Tensor) else []


def _some(tensor: Tensor, dim: int) -> Tensor:
    """Return a part of the batch; a sequence without a batch is whole."""
    tensor = tensor.detach()
    if tensor.dim() < 3:
        return tensor
    return tensor.narrow(dim, 0, min(_MOST_SEQUENCES, tensor.shape[dim]))


def _squares(borders: Borders) -> Tensor:
    """Return a sum of squares per border, over all parts of the state."""
    wide = widest_dtype(borders.gradients[0].device)
    # Widened first: early time steps reach 1e-30, and their squares must survive.
    parts = [part.to(wide).flatten(1).square().sum(dim=1) for part in borders.gradients]
    return torch.stack(parts).sum(dim=0)
