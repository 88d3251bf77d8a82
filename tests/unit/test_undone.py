"""Updates that do not add up, held to real weights that are put back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradguard import Probe
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.detectors import NotLearning, Undone
from lightning_gradguard.detectors.progress import LossProgress
from tests.strategies import make_frame, said_by, stream, through_json


def trained(*, put_back_every: int, steps: int = 60, rate: float = 0.05):
    """Return the frames of a regression whose weights are put back now and then."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    first, probe = copy.deepcopy(model.state_dict()), Probe(model)
    for step in range(steps):
        if put_back_every and step % put_back_every == 0:
            model.load_state_dict(first)
        x = torch.randn(32, 4)
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        probe.before_update(model.parameters(), StepContext(step=step), loss=loss)
        optimizer.step()
        probe.after_update(0)
    return probe.collect()


@pytest.mark.parametrize("every", [1, 2, 5])
def test_weights_that_are_put_back_are_found(every) -> None:
    found = said_by(NotLearning(), trained(put_back_every=every, rate=1e-3))
    assert {f.rule for f in found} == {"undone"}
    assert found[0].value >= found[0].limit == 5.0


@pytest.mark.parametrize(
    "frames",
    [
        trained(put_back_every=0),
        trained(put_back_every=0, rate=0.0),
        trained(put_back_every=30),
        stream(100, lambda s: make_frame(s, param_norm=np.ones(4), update_ratio=1e-8, loss=2.0)),
    ],
    ids=["left alone", "at rest", "rolled back once", "rounded away"],
)
def test_weights_that_are_not_put_back_are_not(frames) -> None:
    assert "undone" not in {f.rule for f in said_by(NotLearning(), frames)}


def test_while_the_loss_falls_weights_may_come_back() -> None:
    progress, rule = LossProgress(), Undone()
    for step in range(60):
        frame = make_frame(step, param_norm=np.ones(4), loss=0.9**step)
        progress.update(frame.loss)
        assert rule.update(frame, progress) is None or step < 20


def test_stopping_in_between_changes_nothing() -> None:
    frames = trained(put_back_every=5, rate=1e-3)
    first = NotLearning()
    before = said_by(first, frames[:33])
    after = said_by(through_json(first, NotLearning()), frames[33:])
    assert [*before, *after] == said_by(NotLearning(), frames)
