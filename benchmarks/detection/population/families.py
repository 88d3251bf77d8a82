"""The architectures of the random healthy runs: how often, on which tasks, how large.

In: what draws, and a task. Out: the arguments of an architecture, and the model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from benchmarks.detection.population import models, over_time
from benchmarks.detection.population.dice import Dice
from benchmarks.detection.population.models import ACTIVATIONS, NORMS
from benchmarks.detection.population.tasks import Task

__all__ = ["COSTLY", "FAMILIES", "TABLES", "Arguments", "Family"]

Arguments = Mapping[str, Any]
TABLES: Final = ("wine", "breast_cancer", "iris", "diabetes", "blobs")
COSTLY: Final = ("cnn", "resnet", "recurrent", "transformer")


@dataclass(frozen=True, kw_only=True)
class Family:
    """An architecture.

    Attributes:
        share: How often, beside the others.
        tasks: Names of what it may learn.
        arguments: Draws the arguments, for a task.
        make: Makes the model, for a task and arguments.
    """

    share: int
    tasks: Sequence[str]
    arguments: Callable[[Dice, str], Arguments]
    make: Callable[[Task, Arguments], nn.Module]


def _mlp(dice: Dice, _task: str) -> Arguments:
    depth = dice.randint(1, 6)
    lowest = 8 if depth == 1 else 16 if depth < 4 else 32
    return {
        "widths": tuple(round(dice.log_uniform(lowest, 128)) for _ in range(depth)),
        "activation": dice.choice(list(ACTIVATIONS)),
        "bias": dice.happens(0.85),
        "dropout": dice.uniform(0.05, 0.3) if depth < 4 and dice.happens(0.25) else 0.0,
        "usual": depth < 3 and dice.happens(0.5),
    }


def _cnn(dice: Dice, _task: str) -> Arguments:
    return {
        "channels": tuple(dice.choice((8, 12, 16)) for _ in range(dice.randint(2, 3))),
        "activation": dice.choice(list(ACTIVATIONS)),
        "norm": dice.choice(list(NORMS)),
        "dropout": dice.choice((0.0, 0.0, 0.2)),
    }


def _resnet(dice: Dice, _task: str) -> Arguments:
    return {
        "width": dice.choice((8, 10, 12)),
        "blocks": dice.randint(1, 2),
        "zero": dice.happens(0.3),
    }


def _recurrent(dice: Dice, task: str) -> Arguments:
    kind = dice.choice(("LSTM", "GRU", "RNN"))
    is_text = task == "characters"
    return {
        "kind": kind,
        "width": dice.choice((24, 32) if is_text else (16, 24, 32)),
        "layers": 1 if is_text or kind == "GRU" else dice.choice((1, 1, 2)),
        "read": "each" if is_text else dice.choice(("last", "mean")),
    }


def _transformer(dice: Dice, task: str) -> Arguments:
    is_text = task == "characters"
    return {
        "width": dice.choice((16, 24)),
        "layers": 1 if is_text else dice.choice((1, 1, 2)),
        "length": 10 if is_text else 8,
        "read": "each" if is_text else "mean",
    }


def _autoencoder(dice: Dice, _task: str) -> Arguments:
    return {
        "width": round(dice.log_uniform(24, 96)),
        "code": dice.randint(10, 24),
        "activation": dice.choice(list(ACTIVATIONS)),
    }


def _embedded(dice: Dice, _task: str) -> Arguments:
    width, hidden = round(dice.log_uniform(8, 32)), dice.choice((0, 0, 64))
    return {"length": 4, "width": width, "hidden": hidden, "sparse": dice.happens(0.3)}


def _linear(_dice: Dice, _task: str) -> Arguments:
    return {"widths": (), "activation": "relu"}


def _over_vectors(task: Task, arguments: Arguments) -> nn.Module:
    return models.mlp(task.inputs[0].numel(), task.outputs, **arguments)


def _read_in_order(
    make: Callable[..., nn.Module],
) -> Callable[[Task, Arguments], nn.Module]:
    def made(task: Task, arguments: Arguments) -> nn.Module:
        inputs = task.outputs if task.form == "tokens" else task.inputs.shape[2]
        return make(inputs, task.outputs, **arguments)

    return made


FAMILIES: Final[Mapping[str, Family]] = {
    "mlp": Family(
        share=34,
        tasks=("digits", "digits", *TABLES, "sine", "moons", "teacher"),
        arguments=_mlp,
        make=_over_vectors,
    ),
    "cnn": Family(
        share=14, tasks=("images",), arguments=_cnn, make=lambda _, drawn: models.cnn(**drawn)
    ),
    "resnet": Family(
        share=7, tasks=("images",), arguments=_resnet, make=lambda _, drawn: models.resnet(**drawn)
    ),
    "recurrent": Family(
        share=16,
        tasks=("rows", "waves", "characters"),
        arguments=_recurrent,
        make=_read_in_order(over_time.recurrent),
    ),
    "transformer": Family(
        share=8,
        tasks=("rows", "characters"),
        arguments=_transformer,
        make=_read_in_order(over_time.transformer),
    ),
    "autoencoder": Family(
        share=6,
        tasks=("copy",),
        arguments=_autoencoder,
        make=lambda task, drawn: models.autoencoder(task.outputs, **drawn),
    ),
    "embedded": Family(
        share=6, tasks=("windows",), arguments=_embedded, make=_read_in_order(models.embedded)
    ),
    "linear": Family(share=6, tasks=("digits", *TABLES), arguments=_linear, make=_over_vectors),
}
"""Each architecture, by name."""
