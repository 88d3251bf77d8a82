"""The gradient with respect to the hidden state of a recurrent layer, at borders in time.

In: a fused `torch.nn.RNN`, ``GRU`` or ``LSTM``, what went in and the gradients of what came out.
Out: the gradient of the loss with respect to the state at each border. A fused layer never shows
its states, and a hook on its output sees only what the output is used for, not what the next step
is. So each layer and direction is run again by itself, in chunks of time, with the user's weights;
between two chunks the state is a tensor that can be asked for its gradient.

Nothing of the user's is written to: neither weights, nor ``.grad``, nor the random state.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

__all__ = ["Borders", "Passage", "gates", "hidden_gradients"]

_GATES: Final = {
    nn.LSTM: ("input gate", "forget gate", "", "output gate"),
    nn.GRU: ("reset gate", "update gate", ""),
}
"""In the order in which torch keeps them; what is no gate has no name."""
_WEIGHTS: Final = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


@dataclass(frozen=True, eq=False)
class Passage:
    """One forward and backward pass through a recurrent layer, all detached.

    Attributes:
        sequence: The input, as it was given.
        states: The initial state, one tensor or two for an LSTM; empty where none was given.
        output_gradient: Of the loss, with respect to the output sequence; None if it is not used.
        state_gradients: The same for each of the final states; None where one is not used.
    """

    sequence: Tensor
    states: tuple[Tensor, ...]
    output_gradient: Tensor | None
    state_gradients: tuple[Tensor | None, ...]


@dataclass(frozen=True, eq=False)
class Borders:
    """Gradients at the borders of one layer and direction.

    Attributes:
        name: ``l0``, ``l1``, …, with ``_reverse`` for the direction from the last step on.
        steps: Time step whose state it is, in the order in which they are gone through, ``(k,)``;
            the last is the final state.
        gradients: Of the loss, with respect to each part of the state as it is handed on and comes
            out: ``(k, batch, hidden)`` each; an LSTM has ``h`` and ``c``, and what its ``h`` takes
            from ``c`` of the same step counts as ``h``.
    """

    name: str
    steps: tuple[int, ...]
    gradients: tuple[Tensor, ...]


def hidden_gradients(
    layer: nn.RNNBase, passage: Passage, *, chunks: int = 8
) -> tuple[list[Borders], list[Borders]]:
    """Return the gradient with respect to the hidden state at the ends of chunks of time.

    Args:
        layer: Its dropout between layers is left out.
        passage: What went through it.
        chunks: At most so many chunks of about equal length; 1 or more.

    Returns:
        One record per layer and direction, in the order in which they are computed; in float32, or
        in float64 where the layer is. Then the same for the loss of the last chunk alone: what is
        lost on the way back from there, which a loss at every step hides.

    Cost:
        With 8 chunks about 2.5 times a forward and backward pass of the layer; memory for one.
    """
    sequence, states = _time_first(layer, passage)
    count = min(chunks, len(sequence))
    ends = [round(len(sequence) * (k + 1) / count) for k in range(count)]
    with torch.enable_grad():
        runs, output = _run(layer, sequence, states, ends)
        whole = _as_output(layer, passage, output)
        late = whole.clone()
        late[: ends[-2] if count > 1 else 0] = 0.0
        found = [_backward(passage, runs, output, gradient) for gradient in (whole, late)]
    first, second = (list(_borders(runs, one, ends, len(sequence))) for one in found)
    return first, second


def gates(layer: nn.RNNBase, passage: Passage) -> dict[str, dict[str, Tensor]]:
    """Return what the gates of an LSTM or GRU put out, by run and gate.

    Args:
        layer: Its dropout between layers is left out.
        passage: What went through it.

    Returns:
        For each layer and direction, such as ``l0``, by the gate's name, ``(time, batch, hidden)``;
        an RNN has none.

    Cost:
        A forward pass of the layer, and two matrix products for all time steps at once.
    """
    if isinstance(layer, nn.RNN):
        return {}
    sequence, states = _time_first(layer, passage)
    with torch.no_grad():
        runs, _ = _run(layer, sequence, states, [len(sequence)])
    return {run.name: run.gates() for run in runs}


@dataclass(eq=False)
class _Run:
    """One layer and direction: its output, and the state after each chunk."""

    name: str
    output: Tensor
    states: list[tuple[Tensor, ...]]
    is_reverse: bool
    gates: Callable[[], dict[str, Tensor]]


def _time_first(layer: nn.RNNBase, passage: Passage) -> tuple[Tensor, list[Tensor]]:
    """Return the sequence as ``(time, batch, features)``, states as ``(runs, batch, hidden)``."""
    sequence, states = _wide(passage.sequence), [_wide(state) for state in passage.states]
    if sequence.dim() == 2:
        sequence, states = sequence.unsqueeze(1), [state.unsqueeze(1) for state in states]
    elif layer.batch_first:
        sequence = sequence.transpose(0, 1)
    return sequence, states


def _run(
    layer: nn.RNNBase, sequence: Tensor, states: Sequence[Tensor], ends: Sequence[int]
) -> tuple[list[_Run], Tensor]:
    directions = 2 if layer.bidirectional else 1
    runs: list[_Run] = []
    for depth in range(layer.num_layers):
        outputs = []
        for direction in range(directions):
            number = depth * directions + direction
            cell = _Single(layer, depth, is_reverse=direction == 1)
            given = tuple(state[number : number + 1] for state in states)
            run = cell.run(sequence, given or cell.zeros(sequence), ends)
            runs.append(run)
            outputs.append(run.output.flip(0) if run.is_reverse else run.output)
        sequence = torch.cat(outputs, dim=-1)
    return runs, sequence


class _Single:
    """One layer and direction of a recurrent layer, by itself."""

    def __init__(self, layer: nn.RNNBase, depth: int, *, is_reverse: bool) -> None:
        self._is_lstm = isinstance(layer, nn.LSTM)
        self._sizes = (layer.proj_size or layer.hidden_size, layer.hidden_size)
        self._is_reverse = is_reverse
        self.name = f"l{depth}{'_reverse' if is_reverse else ''}"
        there = [name for name in _WEIGHTS if hasattr(layer, f"{name}_{self.name}")]
        self._weights = {
            f"{name}_l0": _wide(getattr(layer, f"{name}_{self.name}")) for name in there
        }
        options: dict[str, Any] = {"bias": layer.bias, "device": "meta"}
        if isinstance(layer, nn.RNN):
            options["nonlinearity"] = layer.nonlinearity
        if self._is_lstm:
            options["proj_size"] = layer.proj_size
        width = self._weights["weight_ih_l0"].shape[1]
        # On the meta device it has no numbers, and none are drawn.
        self._module = _type_of(layer)(width, layer.hidden_size, **options)

    def zeros(self, sequence: Tensor) -> tuple[Tensor, ...]:
        """Return the state that is taken where none is given."""
        sizes = self._sizes if self._is_lstm else self._sizes[:1]
        return tuple(sequence.new_zeros(1, sequence.shape[1], size) for size in sizes)

    def run(self, sequence: Tensor, state: tuple[Tensor, ...], ends: Sequence[int]) -> _Run:
        """Go through the sequence in chunks."""
        if self._is_reverse:
            sequence = sequence.flip(0)
        outputs, states, first = [], [], state[0]
        for start, end in zip([0, *ends], ends, strict=False):
            output, state = self._step(sequence[start:end], state)
            outputs.append(output)
            states.append(state)
        whole = torch.cat(outputs)

        def gates() -> dict[str, Tensor]:
            return self._gates(sequence, torch.cat([first, whole[:-1]]))

        return _Run(self.name, whole, states, self._is_reverse, gates)

    def _gates(self, sequence: Tensor, before: Tensor) -> dict[str, Tensor]:
        """Return what the gates put out, given the states before each step."""
        own, names = self._weights, _GATES[nn.LSTM if self._is_lstm else nn.GRU]
        given = functional.linear(sequence, own["weight_ih_l0"], own.get("bias_ih_l0"))
        kept = functional.linear(before, own["weight_hh_l0"], own.get("bias_hh_l0"))
        parts = (part.chunk(len(names), dim=-1) for part in (given, kept))
        return {
            name: torch.sigmoid(one + other)
            for name, one, other in zip(names, *parts, strict=True)
            if name
        }

    def _step(self, part: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        # Weights are detached, so that without this a chunk would keep no graph.
        state = tuple(one if one.requires_grad else one.requires_grad_() for one in state)
        given = state if self._is_lstm else state[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that weights do not lie in one block, as cuDNN likes
            output, new = functional_call(self._module, self._weights, (part, given))
        return output, tuple(new) if self._is_lstm else (new,)


def _type_of(layer: nn.RNNBase) -> Callable[..., nn.RNNBase]:
    """Return which of torch's recurrent layers it is, subclasses included."""
    return next(kind for kind in (nn.RNN, nn.GRU, nn.LSTM) if isinstance(layer, kind))


def _backward(
    passage: Passage, runs: Sequence[_Run], output: Tensor, gradient: Tensor
) -> list[Tensor | None]:
    """Return the gradients of each run's output and states, in turn."""
    wanted = [tensor for run in runs for tensor in (run.output, *_flat(run.states))]
    ends, given = [output], [gradient]
    for part, of_state in enumerate(passage.state_gradients):
        if of_state is not None:
            by_run = _wide(of_state if passage.sequence.dim() == 3 else of_state.unsqueeze(1))
            ends += [run.states[-1][part] for run in runs]
            given += [by_run[k : k + 1] for k in range(len(runs))]
    return list(torch.autograd.grad(ends, wanted, given, allow_unused=True, retain_graph=True))


def _as_output(layer: nn.RNNBase, passage: Passage, output: Tensor) -> Tensor:
    if passage.output_gradient is None:
        return torch.zeros_like(output)
    gradient = _wide(passage.output_gradient)
    if passage.sequence.dim() == 2:
        return gradient.unsqueeze(1)
    return gradient.transpose(0, 1) if layer.batch_first else gradient


def _flat(states: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    return [tensor for state in states for tensor in state]


def _borders(
    runs: Sequence[_Run], gradients: list[Tensor | None], ends: Sequence[int], length: int
) -> Iterator[Borders]:
    place = iter(gradients)
    for run in runs:
        of_output = next(place)
        found = [[next(place) for _ in state] for state in run.states]
        parts = []
        for part, like in enumerate(run.states[0]):
            rows = [_or_zeros(row[part], like) for row in found]
            if part == 0 and of_output is not None:
                # The state is handed on, and is what comes out: both lead to the loss.
                rows = [row + of_output[end - 1] for row, end in zip(rows, ends, strict=True)]
            parts.append(torch.cat(rows))
        steps = tuple(length - end if run.is_reverse else end - 1 for end in ends)
        yield Borders(run.name, steps, tuple(parts))


def _wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 at least: under mixed precision its parts differ."""
    tensor = tensor.detach()
    return tensor if tensor.dtype is torch.float64 else tensor.float()


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient
