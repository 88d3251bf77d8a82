"""The loss of a step is the sum of what went into its backward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_gradguard.losses import StepLoss


def test_losses_add_up_until_they_are_taken() -> None:
    numbers, loss = np.random.default_rng(0).normal(size=7), StepLoss()
    for number in numbers:
        loss.add(torch.tensor(number))
    assert loss.take().item() == pytest.approx(numbers.sum())
    assert loss.take() is None
    loss.add(torch.tensor(3.0))
    assert loss.take() == 3.0


def test_the_gradient_scale_is_divided_out() -> None:
    loss = StepLoss()
    for scale in (1024.0, 512.0):
        loss.add(torch.tensor(2.5 * scale), torch.tensor(scale))
    assert loss.take() == 5.0


def test_of_a_loss_that_is_not_reduced_the_mean_counts() -> None:
    loss = StepLoss()
    loss.add(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    assert loss.take() == 3.0


def test_a_loss_whose_memory_is_used_again_is_the_one_it_was() -> None:
    """As that of a captured graph, which writes the next one to the same place."""
    loss, memory = StepLoss(), torch.tensor(4.0, requires_grad=True)
    loss.add(memory)
    with torch.no_grad():
        memory.fill_(9.0)
    kept = loss.take()
    assert kept == 4.0
    assert not kept.requires_grad
