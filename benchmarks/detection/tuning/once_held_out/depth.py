"""Deep nets of dense layers with gates, self-normalising units or RMS norm."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.once_held_out.layers import Residual, linear_weights
from benchmarks.detection.tuning.once_held_out.parts import (
    Batch,
    Build,
    at,
    batches,
    fit,
    loss_times,
)

__all__ = ["CASES"]


class Highway(nn.Module):
    """A layer that a learned gate mixes with its inputs.

    Args:
        width: Of inputs and outputs.
        gate_bias: Negative to let the inputs through at first.
    """

    def __init__(self, width: int, gate_bias: float) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        self.gate = nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, gate_bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Mix."""
        share = torch.sigmoid(self.gate(inputs))
        mixed: Tensor = inputs + share * (self.layer(inputs) - inputs)
        return mixed


def highway(depth: int, gate_bias: float) -> nn.Sequential:
    """Return a stack of highway layers."""
    layers = [Highway(32, gate_bias) for _ in range(depth)]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), *layers, nn.Linear(32, 10))


def self_normalising(depth: int, inputs: int, classes: int, *, norm: bool = False) -> nn.Sequential:
    """Return SELU layers with the initialisation they were made for."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in (inputs, *[32] * (depth - 1)):
        layers += [nn.Linear(width, 32), nn.SELU()]
        layers += [nn.LayerNorm(32)] if norm else []
    net = nn.Sequential(*layers, nn.Linear(32, classes))
    for weight in linear_weights(net):
        nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    return net


def root_mean_square(depth: int = 4) -> nn.Sequential:
    """Return residual blocks with RMS norm, the last layer of each zero at first."""
    blocks = []
    for _ in range(depth):
        block = Residual(nn.RMSNorm(32), nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32))
        nn.init.zeros_(block.body[3].weight)  # type: ignore[arg-type]  # of a linear layer
        blocks.append(block)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), *blocks, nn.Linear(32, 10))


def swap_classes(step: int, batch: Batch) -> Batch:
    """Number the classes the other way round until step 100."""
    return (batch[0], 9 - batch[1]) if step < 100 else batch


def heavy_decay(training: Training) -> None:
    """Switch on a weight decay of 1."""
    training.optimizers[0].param_groups[0]["weight_decay"] = 1.0


Adam = torch.optim.Adam
momentum = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
adagrad = partial(torch.optim.Adagrad, lr=0.02)
wine = partial(data.table, "wine")


def selu_decayed(*, weight_decay: bool) -> Build:
    """Return the training of a deep SELU net, with a heavy weight decay from step 120 or not."""
    twists = (at(120, heavy_decay),) if weight_decay else ()
    make = partial(self_normalising, 12, 64, 10)
    return fit(make, partial(torch.optim.SGD, lr=0.02), data.digits, *twists)


CASES: tuple[Case, ...] = (
    Case(
        name="highway20-momentum",
        family="highway",
        build=fit(partial(highway, 20, -3.0), momentum, data.digits),
        steps=200,
        level=0.75,
        why="twenty layers whose gates begin nearly shut, so hardly any gradient enters them",
    ),
    Case(
        name="selu-adagrad-full-batch",
        family="selu",
        build=fit(partial(self_normalising, 6, 13, 3), adagrad, wine, batch_size=None),
        steps=150,
        level=0.9,
        why="all examples in each batch, and a rate that only shrinks",
    ),
    Case(
        name="rms-norm-tiny-loss",
        family="rms-norm",
        build=fit(
            root_mean_square, partial(torch.optim.SGD, lr=2e5), data.digits, loss_times(1e-6)
        ),
        steps=200,
        level=0.85,
        why="the loss is a millionth of the usual and the rate a million times it; zeros at birth",
    ),
    Case(
        name="rms-norm-other-task",
        family="rms-norm",
        build=fit(root_mean_square, partial(Adam, lr=3e-3), data.digits, batches(swap_classes)),
        steps=260,
        level=0.85,
        why="at step 100 the classes are numbered the other way round, and are learned again",
    ),
    Case(
        name="highway-gates-open",
        family="highway",
        build=fit(partial(highway, 14, 4.0), momentum, data.digits),
        steps=200,
        level=0.4,
        kinds=("vanishing", "not_learning"),
        cures={"initialisation": fit(partial(highway, 14, -3.0), momentum, data.digits)},
        why="gates that begin open leave nothing of the skip, and 14 sigmoids in a row remain",
    ),
    Case(
        name="selu-decayed-away",
        family="selu",
        build=selu_decayed(weight_decay=True),
        steps=400,
        level=0.5,
        kinds=("vanishing", "not_learning"),
        onset=120,
        cures={"weight decay": selu_decayed(weight_decay=False)},
        why="a weight decay of 1 from step 120 on shrinks twelve layers until no signal passes",
    ),
)
