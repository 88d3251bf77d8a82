"""Steps that are made and do not last, or are made on weights that nobody uses any more.

In: images of digits and numbers to sum. Out: cases in which the optimizer works and the model stays
what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.cnn_models import plain
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import digits, parity
from benchmarks.detection.tuning.training import Fault, ModelMaker, Task, trained

__all__ = ["CASES"]


def restored(every: int) -> Fault:
    """Put the first weights back before each step, or each so many."""
    first: dict[str, torch.Tensor] = {}

    def fault(training: Training, step: int) -> None:
        if step == 0:
            first.update(deepcopy(training.model.state_dict()))
        elif step % every == 0:
            training.model.load_state_dict(first)

    return fault


def renewed(task: Callable[[], Task], make: ModelMaker, places: Sequence[int]) -> Training:
    """Return a training whose optimizer was made before some layers were made anew."""
    training = trained(task, make, adam)
    layers = training.model
    for place in places:
        old = layers.get_submodule(str(place))
        if isinstance(old, nn.Linear):
            setattr(layers, str(place), nn.Linear(old.in_features, old.out_features))
    return training


digits_net = partial(perceptron, 2)
sgd = partial(torch.optim.SGD, lr=0.1)
adam = partial(torch.optim.Adam, lr=3e-3)
by_sgd = partial(trained, digits, digits_net, sgd)
signs = partial(renewed, partial(parity, bits=3), partial(perceptron, 2, inputs=12, outputs=2))
tanhs = partial(renewed, digits, partial(perceptron, 3, nn.Tanh))
by_adam = partial(trained, digits, partial(plain, 2), adam)

CASES: tuple[Case, ...] = (
    Case(
        name="restored-each-epoch",
        family="mlp",
        build=partial(by_sgd, fault=restored(5)),
        steps=200,
        level=0.7,
        kinds=("not_learning",),
        cures={"schedule": by_sgd},
        why="after each epoch of five steps a callback puts the first weights back",
    ),
    Case(
        name="restored-each-step",
        family="mlp",
        build=partial(trained, digits, digits_net, adam, fault=restored(1)),
        steps=200,
        level=0.7,
        kinds=("not_learning",),
        cures={"schedule": partial(trained, digits, digits_net, adam)},
        why="a callback that keeps the best weights puts the first ones back before every step",
    ),
    Case(
        name="restored-each-third-step",
        family="cnn",
        build=partial(by_adam, fault=restored(3)),
        steps=200,
        level=0.7,
        kinds=("not_learning",),
        cures={"schedule": by_adam},
        why="two steps in three are kept, and with the third all are undone",
    ),
    Case(
        name="stale-layers",
        family="mlp",
        build=partial(signs, (1, 3)),
        steps=300,
        level=0.85,
        kinds=("not_learning", "vanishing"),
        cures={"backward pass": partial(signs, ())},
        why="the optimizer holds hidden layers that were replaced since, and moves the head alone",
    ),
    Case(
        name="stale-altogether",
        family="mlp",
        build=partial(tanhs, (1, 3, 5, 7)),
        steps=200,
        level=0.7,
        kinds=("not_learning", "vanishing"),
        cures={"backward pass": partial(tanhs, ())},
        why="the optimizer was made before every layer was made anew, so that nothing moves",
    ),
)
