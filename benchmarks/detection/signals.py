"""Watch a training for the published rules, beside the monitor.

In: the moments of `loop.Watcher`. Out: a `Record`. Cost: one copy of each gradient, weight and
output per step. It changes neither values nor random numbers: a score that is taken on the way is
taken in evaluation mode, from a random state of its own.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.detection.case import Training
from benchmarks.detection.loop import Watcher
from benchmarks.detection.outputs import OutputProbe
from benchmarks.detection.record import Parameters, Record

__all__ = ["Signals"]

Vector = NDArray[np.float64]

COLUMNS: Final = tuple(
    field.name for field in fields(Parameters) if field.name not in {"names", "sizes", "is_kernel"}
)
EARLY_STEPS: Final = 10


class Signals(Watcher):
    """Records a training.

    Args:
        training: What is trained; of each of its optimizers in turn.
        epoch_steps: Steps after which the held-out score is taken, as an epoch's end does.
    """

    def __init__(self, training: Training, *, epoch_steps: int = 25) -> None:
        self._training, self._epoch_steps = training, epoch_steps
        self._parameters = [p for p in training.model.named_parameters() if p[1].numel()]
        self._probe = OutputProbe(training.model)
        self._step, self._turn = -1, 0
        self._seen: list[int] = []
        self._row: dict[str, Vector] = {}
        self._before = np.zeros(0)
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._scores: list[float] = []
        self._rows: list[Vector] = []
        self._output_rows: list[NDArray[np.floating[Any]]] = []

    def before_forward(self, step: int) -> None:
        """Open the probe, and note whose turn it is."""
        self._turn = self._turn + 1 if step == self._step else 0
        self._step = step
        self._probe.is_open = True

    def before_update(self, step: int, loss: float) -> None:
        """Measure gradients and outputs, and keep the weights of this turn's optimizer."""
        self._probe.is_open = False
        optimizer = self._training.optimizers[self._turn]
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._seen = [
            index
            for index, (_, parameter) in enumerate(self._parameters)
            if id(parameter) in own and parameter.grad is not None
        ]
        scaler, is_early = self._training.scaler, step < EARLY_STEPS
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        self._steps.append(step)
        self._losses.append(loss)
        self._output_rows.append(self._probe.row(step, scale))
        if self._seen:
            # `is not None` was asked above.
            gradients = [self._parameters[index][1].grad for index in self._seen]
            self._row = _of_gradients([g for g in gradients if g is not None], spread=is_early)
            self._before = _joined(self._weights())

    def after_update(self, step: int) -> None:
        """Measure the change, and the score at an epoch's end."""
        row = np.full((len(COLUMNS), len(self._parameters)), np.nan)
        if self._seen:
            weights = self._weights()
            sizes = np.array([weight.numel() for weight in weights])
            self._row |= _of_update(self._before, _joined(weights), sizes)
            row[:, self._seen] = [self._row.get(c, np.full(len(sizes), np.nan)) for c in COLUMNS]
        self._rows.append(row)
        is_last = self._turn == len(self._training.optimizers) - 1
        if is_last and (step + 1) % self._epoch_steps == 0:
            self._scores.append(self._score())

    def result(self) -> Record:
        """Return the record, and let go of the model."""
        self._probe.remove()
        shape = (len(self._rows), len(COLUMNS), len(self._parameters))
        with np.errstate(over="ignore"):
            table = np.asarray(self._rows, dtype=np.float32).reshape(shape)
        parameters = Parameters(
            names=tuple(name for name, _ in self._parameters),
            sizes=np.array([p.numel() for _, p in self._parameters], dtype=np.int64),
            is_kernel=np.array([p.dim() >= 2 for _, p in self._parameters], dtype=bool),
            **{column: table[:, index] for index, column in enumerate(COLUMNS)},
        )
        return Record(
            steps=np.array(self._steps, dtype=np.int64),
            losses=np.array(self._losses),
            parameters=parameters,
            outputs=self._probe.result(self._output_rows),
            scores=np.array(self._scores),
            epoch_steps=self._epoch_steps,
        )

    def _weights(self) -> list[Tensor]:
        return [self._parameters[index][1] for index in self._seen]

    def _score(self) -> float:
        model = self._training.model
        modes = [(module, module.training) for module in model.modules()]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.eval()
            score = float(self._training.score())
        for module, mode in modes:
            module.training = mode
        return score


def _of_gradients(gradients: list[Tensor], *, spread: bool) -> dict[str, Vector]:
    flat, sizes = _joined(gradients), np.array([gradient.numel() for gradient in gradients])
    starts = _starts(sizes)
    with np.errstate(all="ignore"):
        numbers = {
            "grad_norm": _bounded(np.sqrt(np.add.reduceat(flat * flat, starts))),
            "grad_mean": _bounded(np.add.reduceat(np.abs(flat), starts) / sizes),
            "grad_zeros": np.add.reduceat((flat == 0.0).astype(float), starts) / sizes,
        }
        if spread:
            tails = [np.percentile(part, (5, 95)) for part in np.split(flat, starts[1:])]
            numbers["grad_spread"] = _bounded(np.array([high - low for low, high in tails]))
    return numbers


def _of_update(before: Vector, after: Vector, sizes: NDArray[np.int64]) -> dict[str, Vector]:
    starts = _starts(sizes)
    with np.errstate(all="ignore"):
        size, change = np.abs(before), np.abs(after - before)
        return {
            "weight_mean": _bounded(np.add.reduceat(size, starts) / sizes),
            "weight_norm": _bounded(np.sqrt(np.add.reduceat(after * after, starts))),
            "weight_small": np.add.reduceat((np.abs(after) < 1e-5).astype(float), starts) / sizes,
            "update_mean": _bounded(np.add.reduceat(change, starts) / sizes),
            "update_norm": _bounded(np.sqrt(np.add.reduceat(change * change, starts))),
            "unchanged": np.minimum.reduceat((change <= 1e-8 + 1e-5 * size).astype(float), starts),
        }


def _joined(tensors: list[Tensor]) -> Vector:
    with torch.no_grad():
        dense = (tensor.to_dense() if tensor.is_sparse else tensor for tensor in tensors)
        flat: Vector = torch.cat([tensor.reshape(-1) for tensor in dense]).double().numpy()
    return flat


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    starts: NDArray[np.int64] = np.cumsum(sizes) - sizes
    return starts


def _bounded(numbers: Vector) -> Vector:
    return np.where(np.isfinite(numbers), numbers, np.inf)
