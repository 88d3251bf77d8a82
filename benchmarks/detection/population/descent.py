"""How a random healthy run goes downhill: optimizer, rate, schedule, scale, decay and clipping.

In: what draws. Out: a `Descent`, and the optimizer and scheduler that it describes. Rates are up
to three times off the usual one. What is unlikely to learn in a few hundred steps, such as a
transformer under plain SGD, is left out here and not caught later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.detection.population.dice import Dice
from benchmarks.detection.population.families import Arguments

__all__ = ["Descent", "drawn", "made", "scheduled"]

Maker = Callable[..., torch.optim.Optimizer]

OPTIMIZERS: Final[Mapping[str, tuple[Maker, float]]] = {
    "sgd": (torch.optim.SGD, 0.1),
    "momentum": (partial(torch.optim.SGD, momentum=0.9), 0.02),
    "nesterov": (partial(torch.optim.SGD, momentum=0.9, nesterov=True), 0.02),
    "adam": (torch.optim.Adam, 3e-3),
    "adamw": (torch.optim.AdamW, 3e-3),
    "rmsprop": (torch.optim.RMSprop, 2e-3),
    "adagrad": (torch.optim.Adagrad, 0.03),
    "nadam": (torch.optim.NAdam, 3e-3),
}
"""Each optimizer and its usual rate on small models."""

FACTORS: Final[Mapping[str, float]] = {
    "LSTM": 3.0,
    "GRU": 3.0,
    "RNN": 2.0,
    "transformer": 2.0,
    "resnet": 2.0,
    "linear": 4.0,
    "autoencoder": 1.5,
    "embedded": 4.0,
}
"""How much more than the usual rate suits what is flat or narrow."""

PLAIN_FACTORS: Final[Mapping[str, float]] = {"LSTM": 6.0, "GRU": 6.0, "RNN": 3.0, "resnet": 2.0}
"""The same for optimizers whose steps grow with the gradient."""

PLAIN: Final = ("sgd", "momentum", "nesterov")
"""Optimizers whose steps grow with the gradient."""

REGRESSIONS: Final = ("diabetes", "copy", "sine", "teacher")


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How one run goes downhill.

    Attributes:
        optimizer: A key of `OPTIMIZERS`.
        rate: Largest learning rate, for a loss of scale one.
        schedule: A key of `SCHEDULES`.
        loss_scale: What the mean loss is multiplied by.
        weight_decay: For a loss of scale one.
        clip_norm: Largest norm, for a loss of scale one.
    """

    optimizer: str
    rate: float
    schedule: str
    loss_scale: float
    weight_decay: float
    clip_norm: float | None


def drawn(dice: Dice, family: str, task: str, model: Arguments, batch_size: int) -> Descent:
    """Draw a descent that suits an architecture, a task and a batch size."""
    is_sparse = bool(model.get("sparse"))
    optimizer = dice.choice(("adagrad",) if is_sparse else _suited(family, task))
    usual = OPTIMIZERS[optimizer][1] * _factor(optimizer, model.get("kind", family), task)
    any_scale = () if optimizer in PLAIN else (1e-4, 1e4)
    decay = dice.log_uniform(1e-5, 1e-3) * (100.0 if optimizer == "adamw" else 1.0)
    return Descent(
        optimizer=optimizer,
        rate=usual * dice.log_uniform(1 / 3, 3) * min(1.0, batch_size / 32) ** 0.35,
        schedule=dice.choice(("constant", *SCHEDULES)),
        loss_scale=dice.choice((1.0, 1.0, 1.0, batch_size, *any_scale)),
        weight_decay=decay if dice.happens(0.5) and not is_sparse else 0.0,
        clip_norm=dice.log_uniform(0.5, 5.0) if dice.happens(0.3) and not is_sparse else None,
    )


def _suited(family: str, task: str) -> Sequence[str]:
    if family == "transformer" or task in {"characters", "windows", "copy", "waves"}:
        return ("adam", "adamw", "rmsprop", "nadam")
    return tuple(OPTIMIZERS)


def _factor(optimizer: str, kind: str, task: str) -> float:
    if optimizer in PLAIN and task in REGRESSIONS:
        return 0.2  # squared errors are steep
    return (PLAIN_FACTORS if optimizer in PLAIN else FACTORS).get(kind, 1.0)


def made(descent: Descent, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer; rate and decay make up for the scale of the loss."""
    name, scale = descent.optimizer, descent.loss_scale
    options: dict[str, Any] = {
        "lr": descent.rate / scale if name in PLAIN else descent.rate,
        "weight_decay": descent.weight_decay * (1.0 if name == "adamw" else scale),
    }
    return OPTIMIZERS[name][0](model.parameters(), **options)


def scheduled(descent: Descent, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Return the scheduler, to be stepped after each step."""
    return LambdaLR(optimizer, lambda step: SCHEDULES[descent.schedule](step / steps))


def _half_wave(share: float) -> float:
    """From one to zero, along half a cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * share)


SCHEDULES: Final[Mapping[str, Callable[[float], float]]] = {
    "constant": lambda _: 1.0,
    "warm-up": lambda share: min(1.0, 0.02 + 10.0 * share),
    "cosine": _half_wave,
    "step": lambda share: 1.0 if share < 0.6 else 0.1 if share < 0.85 else 0.01,
    "one-cycle": lambda share: (
        0.04 + 3.2 * share if share < 0.3 else _half_wave((share - 0.3) / 0.7)
    ),
    "restarts": lambda share: _half_wave(3.0 * share % 1.0),
}
"""What the rate is multiplied by, from the share of steps that are done."""
