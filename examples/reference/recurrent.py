"""Recurrent networks: a tanh RNN that stalls, gates that do not, a ReLU RNN that blows up.

In: the adding problem (``adding.py``) and Python's own sources (``characters.py``). Out: ``RUNS``,
the recurrent part of the reference table.

**What fails, and why.** The adding problem asks for the sum of two marked numbers in a sequence.
The error reaches the first mark only through the product of the Jacobians of all later time steps.
In a tanh RNN with PyTorch's default matrices nearly every factor is below one, and the loss stays
where predicting the mean puts it. GRU and LSTM learn a path whose factor is a gate close to one;
before they have learned it their early time steps get as little as those of the RNN, so what tells
them apart is the loss that falls in the end. The ReLU RNN has a recurrent matrix of norm 1.5 and
nothing that squashes: its first steps are too large, and it overflows within five.

**What the monitor will say.** ``vanishing`` (over time steps) or ``not_learning`` of the tanh RNN,
``nonfinite`` or ``exploding`` of the ReLU RNN without clipping, nothing above ``INFO`` of the rest.
The weight gradients do not show what vanishes over time, because the last steps alone keep them
large; the gradient of the layer's *input* at each time step does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from examples.reference.adding import Adder, adding_data
from examples.reference.characters import CharacterModel, character_data
from examples.reference.run import Expected, Run

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule

HIDDEN_SIZE = 64
LENGTH = 50
SHORT_LENGTH = 20  # enough to overflow, and short enough to be learned once it is clipped


def gated_or_not(kind: Callable[..., nn.RNNBase]) -> Adder:
    """Return an ``Adder`` around an RNN, a GRU or an LSTM whose forget gates start open."""
    core = kind(input_size=2, hidden_size=HIDDEN_SIZE, batch_first=True)
    if isinstance(core, nn.LSTM):
        raise_forget_bias_(core)
    return Adder(core, partial(torch.optim.Adam, lr=5e-3))


def raise_forget_bias_(core: nn.LSTM, value: float = 2.0) -> None:
    """Open the forget gates at the start; at 0 they halve the cell state at every time step."""
    # PyTorch stacks the gates in the order input, forget, cell, output.
    forget = slice(core.hidden_size, 2 * core.hidden_size)
    with torch.no_grad():
        core.get_parameter("bias_ih_l0")[forget] = value
        core.get_parameter("bias_hh_l0")[forget] = 0.0


def expanding_relu() -> Adder:
    """Return a ReLU RNN whose recurrent matrix multiplies every length by 1.5."""
    core = nn.RNN(input_size=2, hidden_size=HIDDEN_SIZE, nonlinearity="relu", batch_first=True)
    nn.init.orthogonal_(core.get_parameter("weight_hh_l0"), gain=1.5)
    return Adder(core, partial(torch.optim.SGD, lr=0.05, momentum=0.9))


def adding_run(
    name: str,
    expected: tuple[Expected, ...],
    model: Callable[[], LightningModule],
    *,
    max_steps: int,
    why: str,
    length: int = LENGTH,
    target: float = 0.8,
    gradient_clip_val: float | None = 1.0,
) -> Run:
    """Return a run on the adding problem, by default over 50 time steps and clipped at norm 1."""
    return Run(
        name=name,
        group="recurrent",
        expected=expected,
        model=model,
        data=partial(adding_data, batches=max_steps, length=length),
        max_steps=max_steps,
        score="val_solved",
        target=target,
        gradient_clip_val=gradient_clip_val,
        why=why,
    )


RUNS: tuple[Run, ...] = (
    adding_run(
        "adding-rnn",
        ("vanishing", "not_learning"),
        partial(gated_or_not, nn.RNN),
        # Enough to see the stall: both gated twins have learned the task by then.
        max_steps=900,
        why="The gradient of early time steps is a product of squashed factors and is gone.",
    ),
    adding_run(
        "adding-gru",
        ("healthy",),
        partial(gated_or_not, nn.GRU),
        max_steps=600,
        why="The update gate keeps a path over time along which the gradient survives.",
    ),
    adding_run(
        "adding-lstm",
        ("healthy",),
        partial(gated_or_not, nn.LSTM),
        max_steps=900,
        why="Forget gates that start open keep the cell state, and with it the gradient; "
        "learning starts after a plateau.",
    ),
    adding_run(
        "relu-rnn",
        ("nonfinite", "exploding"),
        expanding_relu,
        max_steps=30,
        length=SHORT_LENGTH,
        target=0.5,
        gradient_clip_val=None,
        why="A recurrent matrix of norm 1.5 makes one step too large, and the next overflows.",
    ),
    adding_run(
        "relu-rnn-clipped",
        ("healthy",),
        expanding_relu,
        max_steps=1500,
        length=SHORT_LENGTH,
        target=0.5,
        why="The same network with the gradient norm clipped at 1: no step is too large.",
    ),
    Run(
        name="characters-lstm",
        group="recurrent",
        expected=("healthy",),
        model=CharacterModel,
        data=character_data,
        max_steps=400,
        score="val_accuracy",
        target=0.45,
        gradient_clip_val=1.0,
        why="Python code, character by character; always naming the space is right for 28 %.",
    ),
)
