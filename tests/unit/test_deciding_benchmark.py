"""The benchmark of what acting costs measures every way of acting, on gradients that stay."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.deciding import ACTORS, measured


def test_every_way_of_acting_is_measured_beside_that_of_torch() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    found = measured(model, rounds=3)
    assert list(found) == ["torch", *ACTORS]
    assert all(milliseconds.middle > 0.0 for milliseconds, _ in found.values())
    assert found["torch"][1].middle == 1.0


def test_what_is_clipped_in_one_round_is_whole_again_in_the_next() -> None:
    """Else gradients would soon be too small for ordinary arithmetic, which is slow."""
    model = nn.Linear(4, 4)
    measured(model, rounds=20)
    assert model.weight.grad is not None
    assert float(torch.linalg.vector_norm(model.weight.grad)) > 0.1
