"""A broken batch, through a real trainer."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradguard import GradientMonitor
from tests.e2e.models import Classifier, Keep, Poisoned, mlp, trainer

BROKEN = 2


def data(value, *, batch_size=8):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(40, 6, generator=generator)
    inputs[8 * BROKEN + 3, 4] = value
    labels = torch.randint(0, 3, (40,), generator=generator)
    return DataLoader(TensorDataset(inputs, labels), batch_size=batch_size)


def watched(model, loader, **options):
    keep = Keep()
    monitor = GradientMonitor(sinks=[keep], on_error="raise", **options.pop("monitor", {}))
    trainer(monitor, max_epochs=1, **options).fit(model, loader)
    return monitor, keep.frames


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_batch_is_blamed_for_the_gradients_that_it_broke(value):
    monitor, frames = watched(Classifier(mlp()), data(value))
    assert [frame.batch_is_finite for frame in frames[: BROKEN + 2]] == [True, True, False, True]
    (finding,) = monitor.alarms
    assert (finding.kind, finding.rule, finding.step) == ("nonfinite", "data", BROKEN)
    assert "the batch itself" in finding.message
    assert f"last finite at step {BROKEN - 1}" in finding.message


def test_a_loss_that_breaks_by_itself_is_not_blamed_on_the_batch():
    monitor, frames = watched(Poisoned(mlp()), data(1.0))
    assert all(frame.batch_is_finite for frame in frames)
    (finding,) = monitor.alarms
    assert (finding.rule, finding.step) == ("loss", 2)
    assert "from a batch that is finite" in finding.message


def test_any_of_several_accumulated_batches_may_be_broken():
    _, frames = watched(Classifier(mlp()), data(math.nan), accumulate_grad_batches=2)
    assert [frame.batch_is_finite for frame in frames] == [True, False, True]


def test_on_steps_that_are_not_looked_at_no_batch_is_read():
    _, frames = watched(Classifier(mlp()), data(1.0), monitor={"every_n_steps": 2})
    assert [(frame.step, frame.batch_is_finite) for frame in frames] == [
        (0, True),
        (2, True),
        (4, True),
    ]


def test_watching_dead_units_and_batches_changes_no_weight():
    ends = []
    for watch in (False, True):
        torch.manual_seed(0)
        model = Classifier(mlp())
        callbacks = [GradientMonitor(sinks=[], on_error="raise")] if watch else []
        trainer(*callbacks, max_epochs=1).fit(model, data(1.0))
        ends.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
