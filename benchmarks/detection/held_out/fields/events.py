"""How often something happens, and when it ends: perceptrons with losses for counts and times."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.held_out.fields import sources
from benchmarks.detection.held_out.fields.parts import (
    Batch,
    Task,
    fit,
    perceptron,
)

__all__ = ["CASES"]


def cox(model: nn.Module, inputs: Tensor, targets: Tensor, *, least: float = 0.0) -> Tensor:
    """Return the partial likelihood's negative logarithm per event, of at least so many events."""
    time, seen = targets.unbind(1)
    risk = model(inputs).squeeze(1)
    order = time.argsort(descending=True)
    lost = risk[order].logcumsumexp(dim=0) - risk[order]
    total: Tensor = (lost * seen[order]).sum() / seen.sum().clamp(min=least)
    return total


def concordance(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of comparable pairs whose order of risk is right."""
    time, seen = targets.unbind(1)
    risk = model(inputs).squeeze(1)
    comparable = (time[:, None] < time[None, :]) & (seen[:, None] == 1)
    return float((risk[:, None] > risk[None, :])[comparable].float().mean())


def poisson(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the Poisson loss of log rates; below zero when counts are foreseen."""
    return nn.functional.poisson_nll_loss(model(inputs), targets)


def poisson_gain(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Return how much smaller the loss is than that of the mean rate."""
    same = targets.mean().log().expand_as(targets)
    return float(nn.functional.poisson_nll_loss(same, targets) - poisson(model, inputs, targets))


def none_seen(step: int, batch: Batch) -> Batch:
    """Let every hundredth batch hold nobody whose end was seen."""
    if step % 100 != 90:
        return batch
    inputs, targets = batch
    return inputs, targets * torch.tensor([1.0, 0.0])


def wrong_unit(step: int, batch: Batch, *, when: int = 120) -> Batch:
    """Give one column of a few rows in another unit, 40 times as large, from a step on."""
    inputs, targets = batch
    factors = torch.ones_like(inputs)
    factors[:4, 0] = 40.0
    return (inputs * factors, targets) if step >= when else batch


Ends = Task(split=sources.survival, loss=cox, score=concordance, size=48)
SafeEnds = Task(split=sources.survival, loss=partial(cox, least=1.0), score=concordance, size=48)
Counts = Task(split=sources.counts, loss=poisson, score=poisson_gain, size=32)
ends_net = partial(perceptron, 6, 32, 32, 1, act=nn.SiLU)
counts_net = partial(perceptron, 8, 48, 48, 1)
rms = partial(torch.optim.RMSprop, lr=2e-3)
plain = partial(torch.optim.SGD, lr=0.02)
nadam = partial(torch.optim.NAdam, lr=3e-3)

CASES: tuple[Case, ...] = (
    Case(
        name="cox-small-cohorts",
        family="table",
        build=fit(Ends, ends_net, nadam),
        steps=400,
        level=0.68,
        why="each patient is compared with those of the same batch, so the loss is noisy",
    ),
    Case(
        name="counts-below-zero",
        family="table",
        build=fit(Counts, counts_net, rms),
        steps=400,
        level=0.65,
        why="the loss of counts goes from above zero to far below",
    ),
    Case(
        name="cox-nobody-seen",
        family="table",
        build=fit(Ends, ends_net, nadam, change=none_seen),
        steps=300,
        level=0.62,
        kinds=("nonfinite",),
        onset=90,
        cures={"look at the loss": fit(SafeEnds, ends_net, nadam, change=none_seen)},
        why="where nobody's end was seen, the mean over ends is nothing divided by nothing",
    ),
    Case(
        name="counts-wrong-unit",
        family="table",
        build=fit(Counts, counts_net, plain, change=wrong_unit),
        steps=260,
        level=0.5,
        kinds=("exploding", "nonfinite", "diverging", "dead"),
        onset=120,
        cures={"look at the data": fit(Counts, counts_net, plain)},
        why="rates are exponentials, so rows in a wrong unit give a slope beyond all scale",
    ),
)
