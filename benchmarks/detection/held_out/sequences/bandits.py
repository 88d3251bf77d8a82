"""A bandit that learns from a log of what others did, by the chances they gave it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.held_out.sequences import sources
from benchmarks.detection.held_out.sequences.parts import Batch, fit, on_batches, using

__all__ = ["CASES"]


def logged() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return contexts ``(n, 8)``, and of each an arm of five, its chance and its reward."""
    draw = sources.generator()
    contexts = torch.randn(4000, 8, generator=draw)
    best = (contexts @ torch.randn(8, 5, generator=draw)).argmax(dim=1)
    arms = torch.randint(5, (4000,), generator=draw)
    paid = torch.where(arms == best, 0.9, 0.1) > torch.rand(4000, generator=draw)
    log = torch.stack([arms.float(), torch.full((4000,), 0.2), paid.float()], dim=1)
    log[3200:, 0] = best[3200:]
    return sources.split(contexts, log)


def regretless(model: nn.Module, contexts: Tensor, log: Tensor) -> Tensor:
    """Return the reward that is missed, by weights of chances: it is below zero."""
    chances = model(contexts).softmax(dim=1)
    arms, chance, paid = log.unbind(dim=1)
    weight: Tensor = chances.gather(1, arms.long().unsqueeze(1)).squeeze(1) / chance
    missed: Tensor = -weight * (paid - 0.2)
    return missed.mean()


def best_arms(model: nn.Module, contexts: Tensor, log: Tensor) -> float:
    """Return the share of contexts for which the best arm is chosen."""
    return float((model(contexts).argmax(dim=1) == log[:, 0]).float().mean())


def unlikely(step: int, contexts: Tensor, log: Tensor) -> Batch:
    """Log, from step 80 on, chances a million times too small for some arms."""
    if step >= 80:
        log = log.clone()
        log[::8, 1] = 2e-7
    return contexts, log


def trusted(_step: int, contexts: Tensor, log: Tensor) -> Batch:
    """Take no chance to be below a fifth."""
    log = log.clone()
    log[:, 1].clamp_(min=0.2)
    return contexts, log


def arms_net() -> nn.Sequential:
    """Return a net from contexts to arms."""
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5))


bandit = partial(
    fit,
    arms_net,
    using(torch.optim.SGD, lr=0.5),
    logged,
    loss=regretless,
    score=best_arms,
    batch_size=64,
)

CASES: tuple[Case, ...] = (
    Case(
        name="bandit-log",
        family="bandit",
        build=bandit(),
        steps=300,
        level=0.7,
        why="the loss is a reward with a minus, weighted by chances, and lies below zero",
    ),
    Case(
        name="bandit-chances-mislogged",
        family="bandit",
        build=bandit(on_batches(unlikely)),
        steps=300,
        level=0.5,
        kinds=("exploding", "diverging", "vanishing", "not_learning"),
        onset=80,
        cures={"look at the data": bandit(on_batches(unlikely), on_batches(trusted))},
        why="from a step on some logged chances are a million times too small, and divide the loss",
    ),
)
