"""Steps that are held back because they would move the weights too far."""

from __future__ import annotations

import math
from statistics import median_low

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gradguard.remedies import LimitUpdates
from tests.e2e.guard_cases import (
    assert_same,
    batches,
    classifier,
    done,
    guard,
    matrices,
    normed,
    train,
)

STEPS = 8  # an epoch


def biases():
    """Return a network of which only vectors are trained."""
    network = normed()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.dim() == 1)
    return network


@pytest.mark.parametrize("optimizer", [torch.optim.LBFGS, torch.optim.Rprop])
def test_optimizers_whose_steps_do_not_follow_the_rate_are_left_alone(optimizer) -> None:
    make = classifier(matrices, optimizer)
    guarded = guard(remedies=[LimitUpdates()])
    assert_same(train(make, guarded), train(make))
    assert guarded.summary().acts == ()


@pytest.mark.parametrize(
    ("options", "trained", "held"),
    [
        ({"include": "network.1*"}, normed, ["held back 1 of 8"]),
        ({"group_by": "parameter"}, normed, ["held back 1 of 8"]),
        ({}, biases, []),
    ],
    ids=["no matrix watched", "rows of parameters", "matrices frozen"],
)
def test_a_healthy_run_is_held_back_in_its_first_step_at_most(options, trained, held) -> None:
    guarded = guard(remedies=[LimitUpdates()], **options)
    train(classifier(trained), guarded)
    assert [act[: len("held back 1 of 8")] for act in guarded.summary().acts] == held


def by_hand(module):
    """Train with plain torch, each step as long as the limits allow; return the factors."""
    optimizer = module.configure_optimizers()
    rate = optimizer.param_groups[0]["lr"]
    weights = list(module.parameters())
    least = [math.sqrt(len(weight) / 3.0) for weight in weights]  # of PyTorch's own initialisation
    first = [max(float(w.detach().double().norm()), n) for w, n in zip(weights, least, strict=True)]
    factor, mean, factors = 0.01, 0.0, []
    for inputs, targets in batches(64, 6):
        before = [weight.detach().double().clone() for weight in weights]
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), targets).backward()
        optimizer.param_groups[0]["lr"] = rate * factor
        optimizer.step()
        factors.append(factor)
        ratios = [
            float((weight.detach().double() - old).norm()) / min(max(float(old.norm()), low), start)
            for weight, old, low, start in zip(weights, before, least, first, strict=True)
        ]
        ratio = median_low(ratios)
        mean += (ratio - mean) / min(len(factors), 30)
        allowed = 0.1 * min(1.0, 0.03 / mean) * factor / ratio
        factor = min(1.0, allowed, math.inf if len(factors) == 1 else 1.5 * factor)
    return factors


@pytest.mark.parametrize(
    ("optimizer", "rate"), [(torch.optim.SGD, 30.0), (torch.optim.Adam, 0.3)], ids=["SGD", "Adam"]
)
def test_every_step_is_as_long_as_in_plain_torch(optimizer, rate) -> None:
    make = classifier(matrices, optimizer, lr=rate)
    guarded = guard(remedies=[LimitUpdates()])
    run = train(make, guarded)
    pl.seed_everything(7, verbose=False)
    expected = make()
    factors = by_hand(expected)
    assert min(factors[1:]) < 0.5  # too fast without
    for ours, theirs in zip(run.module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert done(guarded, "reduce_lr") == []
    [line] = guarded.summary().acts
    held = [factor for factor in factors if factor < 1.0]
    assert line.startswith(
        f"held back {len(held)} of {STEPS} steps, to {sum(held) / len(held):.2g} "
    )
