"""Faults that are put into a running training, and accidents that it survives.

In: the step at which it happens. Out: functions for `trained(fault=...)`, and tasks whose data
go wrong. Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.detection.case import Training
from benchmarks.detection.tuning.training import Batch, Fault, Task

__all__ = [
    "at",
    "decay_weights",
    "during",
    "multiply_rate",
    "nan_backward",
    "one_nan",
    "scaled_inputs",
    "silence",
    "spoiled",
]


def at(onset: int, act: Callable[[Training], None]) -> Fault:
    """Do something once, before a step."""
    return during(onset, onset + 1, act)


def during(start: int, stop: int, act: Callable[[Training], None]) -> Fault:
    """Do something before each of several steps."""

    def fault(training: Training, step: int) -> None:
        if start <= step < stop:
            act(training)

    return fault


def silence(keep: str) -> Fault:
    """Multiply all gradients by zero, from birth, but for one parameter."""

    def act(training: Training) -> None:
        for name, parameter in training.model.named_parameters():
            if name != keep:
                parameter.register_hook(torch.zeros_like)  # type: ignore[no-untyped-call]

    return at(0, act)


def multiply_rate(factor: float) -> Callable[[Training], None]:
    """Multiply the learning rate of all groups."""

    def act(training: Training) -> None:
        for optimizer in training.optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= factor

    return act


def decay_weights(weight_decay: float) -> Callable[[Training], None]:
    """Set the weight decay of all groups."""

    def act(training: Training) -> None:
        for optimizer in training.optimizers:
            for group in optimizer.param_groups:
                group["weight_decay"] = weight_decay

    return act


def spoiled(
    task: Callable[[], Task],
    change: Callable[[Tensor, Tensor], Batch],
    *,
    start: int,
    stop: int | None = None,
) -> Callable[[], Task]:
    """Change the batches from one step on, until another."""

    def made() -> Task:
        plain = task()

        def draw(step: int) -> Batch:
            inputs, targets = plain.draw(step)
            is_spoiled = start <= step and (stop is None or step < stop)
            return change(inputs, targets) if is_spoiled else (inputs, targets)

        return replace(plain, draw=draw)

    return made


def scaled_inputs(factor: float) -> Callable[[Tensor, Tensor], Batch]:
    """Multiply the inputs."""
    return lambda inputs, targets: (inputs * factor, targets)


def one_nan(inputs: Tensor, targets: Tensor) -> Batch:
    """Put one NaN into the first row."""
    spoilt = inputs.clone()
    spoilt[0].view(-1)[0] = torch.nan
    return spoilt, targets


def nan_backward(onset: int, index: int) -> Fault:
    """Let the gradient that leaves one layer of a sequence be NaN from a step on."""

    def spoil(_module: object, _inputs: object, output: Tensor) -> Tensor:
        spoilt: Tensor = _NanBackward.apply(output)  # type: ignore[no-untyped-call]
        return spoilt

    def act(training: Training) -> None:
        training.model[index].register_forward_hook(spoil)  # type: ignore[index]

    return at(onset, act)


class _NanBackward(torch.autograd.Function):
    @staticmethod
    def forward(_context: object, inputs: Tensor) -> Tensor:
        return inputs.clone()

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        return 0.0 * gradient / 0.0
