"""What one labelled training is, and the loop-independent parts it is made of.

In: nothing. Out: `Training`, everything a loop needs, and `Case`, a training with its label. A
label says what is wrong, since which step, and which cures are known to help; that it is true is
shown by training, never by a detector. This file knows no detector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

__all__ = ["CURES", "Case", "Cure", "Training"]

Cure = Literal[
    "lower learning rate",
    "higher learning rate",
    "warm-up",
    "clip by norm",
    "normalisation",
    "skip connections",
    "He initialisation",
    "Xavier initialisation",
    "orthogonal",
    "LSTM",
    "weight decay",
    "look at the data",
    "look at the loss",
    "backward pass",
    "schedule",
    "initialisation",
]

CURES: Final[Mapping[Cure, str]] = {
    "lower learning rate": r"lower(?: the)? learning rate|lower rate",
    "higher learning rate": r"higher(?: the)? learning rate|higher rate",
    "warm-up": r"warm-?up",
    "clip by norm": r"clip\w* by norm",
    "normalisation": r"normalisation|layer norm|batch norm",
    "skip connections": r"skip connection",
    "He initialisation": r"\bHe\b.*initialisation",
    "Xavier initialisation": r"Xavier",
    "orthogonal": r"orthogonal",
    "LSTM": r"\bLSTM\b|\bGRU\b",
    "weight decay": r"weight decay",
    "look at the data": r"\bdata\b|\bbatch\b|\btargets?\b|\binputs?\b",
    "look at the loss": r"\bloss\b|forward pass",
    "backward pass": r"backward pass",
    "schedule": r"schedule",
    "initialisation": r"initialis|start from weights",
}
"""How each cure is recognised in an advice, as a regular expression."""


@dataclass(kw_only=True)
class Training:
    """A training, ready to begin.

    Attributes:
        model: What is trained.
        optimizers: One, or several that step in turn on each batch.
        batch: Makes the batch of a step; asked once per accumulated part.
        loss: From a batch and the optimizer's index, a scalar.
        score: Held-out score at the end, larger is better; called in evaluation mode.
        schedulers: Stepped once after each step.
        clip_norm: Largest global norm that is let through.
        accumulate: Batches added up before each step.
        short_every: Every so many steps the window is cut to one batch, as an epoch's end does.
        autocast: Type of mixed precision.
        scaler: Scales the loss, as float16 asks for.
        before_step: Called first of all in each step: where faults are put in.
    """

    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    batch: Callable[[int], Any]
    loss: Callable[[Any, int], Tensor]
    score: Callable[[], float]
    schedulers: Sequence[Any] = ()
    clip_norm: float | None = None
    accumulate: int = 1
    short_every: int | None = None
    autocast: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None
    before_step: Callable[[int], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A labelled training.

    Attributes:
        name: Unique name.
        family: Architecture, such as ``"mlp"``.
        build: Makes the training; called after seeding.
        steps: Optimizer steps.
        level: Score that a healthy or cured run must reach and a failing one must not.
        kinds: What is wrong, the principal kind first, then others that would be right, too;
            empty for a healthy run.
        onset: First step at which the fault is there.
        cures: The same training with a cure, by the name of the cure.
        needs_activations: Whether it can be told from activations only; scored apart.
        why: One sentence: what is special, or what fails and why.
    """

    name: str
    family: str
    build: Callable[[], Training]
    steps: int
    level: float
    why: str
    kinds: tuple[str, ...] = ()
    onset: int = 0
    cures: Mapping[Cure, Callable[[], Training]] = field(default_factory=dict)
    needs_activations: bool = False

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.kinds
