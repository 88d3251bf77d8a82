"""Will acting work here? Asked before the first step.

In: a trainer as the user set it up. Out: an error or a warning that names the problem and the way
out. Changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import torch
from torch import nn

from lightning_gradguard import trainers
from lightning_gradguard.actions.rates import has_rate
from lightning_gradguard.remedies import Only, Remedy
from lightning_gradguard.remedies.traits import acts_of, find
from lightning_gradguard.rosters import roster_of

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

__all__ = ["Acting", "check"]

_log: Final = logging.getLogger(__name__)


class Acting(Protocol):
    """A callback that acts."""

    remedies: list[Remedy]

    @property
    def dry_run(self) -> bool:
        """Whether it only says what it would do."""


def check(trainer: Trainer, pl_module: LightningModule, guard: Acting) -> None:
    """Raise if what the guard is to do cannot work here.

    Raises:
        ValueError: It cannot; the message says why and what to do.
    """
    if trainers.is_sharded(trainer) or _has_sharded_parameters(pl_module):
        msg = (
            "`GradientGuard` needs whole gradients on each rank, got "
            f"{type(trainer.strategy).__name__}, which keeps only a part: a decision on a part "
            "would be wrong. Use DDP or a single device."
        )
        raise ValueError(msg)
    acts = _all_acts(guard.remedies)
    for optimizer in trainer.optimizers:
        _check_optimizer(trainer, optimizer, acts)
    _check_globs(pl_module, trainer.optimizers, guard.remedies)
    for other in getattr(trainer, "callbacks", ()):
        is_guard = other is not guard and isinstance(getattr(other, "remedies", None), list)
        if is_guard and not (guard.dry_run or getattr(other, "dry_run", False)):
            _check_pair(pl_module, trainer.optimizers, guard.remedies, other.remedies)


def _has_sharded_parameters(model: nn.Module) -> bool:
    return any(hasattr(parameter, "placements") for parameter in model.parameters())


def _check_optimizer(
    trainer: Trainer, optimizer: torch.optim.Optimizer, acts: frozenset[str]
) -> None:
    name = type(optimizer).__name__
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):  # made by its __init__
        msg = (
            f"`GradientGuard` needs an optimizer with step hooks, got {name}, which has none. "
            "Derive it from torch.optim.Optimizer and call its __init__."
        )
        raise ValueError(msg)
    if "learning rate" in acts and not all(map(has_rate, optimizer.param_groups)):
        _log.warning(
            "gradguard cannot lower the learning rate of %s, which has none in its parameter "
            "groups: it sets its steps itself. Give it a number as `lr` to let it be lowered.",
            name,
        )
    is_fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    clips = getattr(trainer, "gradient_clip_val", None)
    if clips and is_fused and trainers.has_scaler(trainer):
        msg = (
            f"Trainer(gradient_clip_val={clips!r}) cannot clip gradients of the fused {name} under "
            "a gradient scaler: they are still scaled there. Leave it out, and write "
            f"GradientGuard(clip={float(clips):g}), which knows the scale."
        )
        raise ValueError(msg)
    if clips and "clip" in acts:
        _log.info(
            "gradguard clips first, then the trainer does (gradient_clip_val=%s): the stricter of "
            "the two decides. Both coefficients are logged.",
            clips,
        )


def _check_globs(
    model: nn.Module, optimizers: Iterable[torch.optim.Optimizer], remedies: Sequence[Remedy]
) -> None:
    rosters = [roster_of(model, optimizer, {}) for optimizer in optimizers]
    for part in find(remedies, Only):
        part.check(rosters)


def _check_pair(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    mine: Sequence[Remedy],
    theirs: Sequence[Remedy],
) -> None:
    """Raise if two guards act on the same thing."""
    shared = _all_acts(mine) & _all_acts(theirs)
    if "clip" in shared:
        both = _clipped(model, optimizers, mine) & _clipped(model, optimizers, theirs)
        shared = shared if both else shared - {"clip"}
    if shared:
        what = " and ".join(sorted(shared))
        msg = (
            f"Two guards of one trainer must not act on the same thing, got two that do: {what}. "
            "Give one of them all that is to be done, and each remedy of your own the attribute "
            "`acts`, a set of what it does: without, it may do everything."
        )
        raise ValueError(msg)


def _clipped(
    model: nn.Module, optimizers: Iterable[torch.optim.Optimizer], remedies: Sequence[Remedy]
) -> set[int]:
    members = [m for optimizer in optimizers for m in roster_of(model, optimizer, {}).members]
    return {
        id(member.parameter)
        for remedy in remedies
        if "clip" in acts_of(remedy)
        for member in members
        if all(part.matches(member) for part in find([remedy], Only))
    }


def _all_acts(remedies: Sequence[Remedy]) -> frozenset[str]:
    return frozenset().union(*map(acts_of, remedies))
