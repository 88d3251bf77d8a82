"""Look at what leaf modules put out, and at the gradients with respect to it.

In: a model, by hooks. Out: one row of numbers per step of an optimizer. Outputs are copied and
never changed; nothing random is drawn.
"""

from __future__ import annotations

import math
from dataclasses import fields
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.detection.activity import (
    Matrix,
    Tally,
    bounded,
    by_unit,
    of_activation,
    of_inputs,
    stacked,
)
from benchmarks.detection.record import Outputs

__all__ = ["OutputProbe"]

FAMILIES: Final[dict[str, tuple[type[nn.Module], ...]]] = {
    "relu": (nn.ReLU, nn.ReLU6),
    "tanh": (nn.Tanh,),
    "sigmoid": (nn.Sigmoid,),
    "softmax": (nn.Softmax, nn.LogSoftmax),
    "activation": (
        nn.LeakyReLU,
        nn.PReLU,
        nn.ELU,
        nn.SELU,
        nn.GELU,
        nn.SiLU,
        nn.Mish,
        nn.Hardswish,
        nn.Hardsigmoid,
    ),
}
PERIOD: Final = 10
"""Steps over which TheDeepChecker looks at a unit, and `PoorWeightInitialization` at all."""
COLUMNS: Final = tuple(
    field.name for field in fields(Outputs) if field.name not in {"names", "families", "is_trained"}
)


class OutputProbe:
    """Watches the leaf modules of a model while it is open."""

    is_open = False

    def __init__(self, model: nn.Module) -> None:
        self._modules: list[tuple[str, str, bool]] = []
        self._handles: list[Any] = []
        self._first_is_channel = any(isinstance(module, nn.Conv1d) for module in model.modules())
        for name, module in model.named_modules():
            is_leaf = next(module.children(), None) is None
            family = _family(module)
            parameters = list(module.parameters())
            if is_leaf and (family or parameters):
                self._watch(module, len(self._modules), family)
                is_trained = any(parameter.requires_grad for parameter in parameters)
                self._modules.append((name, family, is_trained))
        self._period = 0
        self._tallies: dict[int, Tally] = {}
        self._clear()

    def _watch(self, module: nn.Module, index: int, family: str) -> None:
        if family:  # before the call: an in-place activation overwrites its input
            look = partial(self._see_input, index)
            self._handles.append(module.register_forward_pre_hook(look))
        self._handles.append(module.register_forward_hook(partial(self._see_output, index)))

    def remove(self) -> None:
        """Let go of the model."""
        for handle in self._handles:
            handle.remove()

    def row(self, step: int, loss_scale: float) -> Matrix:
        """Return one number per column and module, and forget what was seen.

        Args:
            step: Of the training; the variance of inputs is taken in the first ten.
            loss_scale: What the loss was multiplied with before the backward pass.
        """
        row = np.full((len(COLUMNS), len(self._modules)), np.nan)
        if step // PERIOD != self._period:
            self._period = step // PERIOD
            self._tallies.clear()
        with np.errstate(all="ignore"):
            for index, outputs in self._outputs.items():
                numbers = self._numbers(index, stacked(outputs), is_early=step < PERIOD)
                row[:, index] = [numbers.get(column, np.nan) for column in COLUMNS]
            for index, square in self._squares.items():
                row[COLUMNS.index("grad_norm"), index] = bounded(np.sqrt(square) / loss_scale)
        self._clear()
        return row

    def result(self, rows: list[Matrix]) -> Outputs:
        """Return all rows as they are kept."""
        shape = (len(rows), len(COLUMNS), len(self._modules))
        with np.errstate(over="ignore"):
            table = np.asarray(rows, dtype=np.float32).reshape(shape)
        return Outputs(
            names=tuple(name for name, _, _ in self._modules),
            families=tuple(family for _, family, _ in self._modules),
            is_trained=np.array([trained for _, _, trained in self._modules], dtype=bool),
            **{column: table[:, index] for index, column in enumerate(COLUMNS)},
        )

    def _clear(self) -> None:
        self._inputs: dict[int, list[Matrix]] = {}
        self._outputs: dict[int, list[Matrix]] = {}
        self._squares: dict[int, float] = {}

    def _see_input(self, index: int, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        tensor = _first_tensor(inputs)
        if self.is_open and tensor is not None:
            self._inputs.setdefault(index, []).append(
                by_unit(tensor, first_is_channel=self._first_is_channel)
            )

    def _see_output(self, index: int, _module: nn.Module, _inputs: Any, output: Any) -> None:  # noqa: ANN401 - whatever a module takes and gives
        tensor = _first_tensor(output)
        if not self.is_open or tensor is None:
            return
        self._outputs.setdefault(index, []).append(
            by_unit(tensor, first_is_channel=self._first_is_channel)
        )
        if tensor.requires_grad:
            look = partial(self._see_gradient, index)
            tensor.register_hook(look)  # type: ignore[no-untyped-call]  # torch's own gap

    def _see_gradient(self, index: int, gradient: Tensor) -> None:
        if not self.is_open:
            return
        flat = gradient.detach().float().numpy().ravel()
        with np.errstate(all="ignore"):
            square = float(flat @ flat)
            if not math.isfinite(square):  # perhaps only too large for its type
                square = float(np.square(flat, dtype=np.float64).sum())
        self._squares[index] = self._squares.get(index, 0.0) + square

    def _numbers(self, index: int, values: Matrix, *, is_early: bool) -> dict[str, float]:
        family, size = self._modules[index][1], np.abs(values)
        numbers = {
            "mean": bounded(values.mean()),
            "near_zero": np.count_nonzero(size < 1e-6) / size.size,
            "near_one": np.count_nonzero(size > 0.95) / size.size,
        }
        if family and family != "softmax":
            numbers |= of_activation(family, values)
            numbers |= self._tallies.setdefault(index, Tally(family)).add(values, size)
            if index in self._inputs:
                numbers |= of_inputs(family, stacked(self._inputs[index]), is_early=is_early)
        return numbers


def _family(module: nn.Module) -> str:
    return next((name for name, types in FAMILIES.items() if isinstance(module, types)), "")


def _first_tensor(value: Any) -> Tensor | None:  # noqa: ANN401 - whatever a module takes and gives
    while isinstance(value, tuple | list) and value:
        value = value[0]
    is_usable = isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0
    return value if is_usable and value.layout == torch.strided else None
