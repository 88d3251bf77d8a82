"""``max_overhead``: looks get rarer, broken numbers are never missed, and nothing else changes."""

from __future__ import annotations

import logging
import time

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision

from lightning_gradguard import GradientMonitor
from tests.e2e.models import Classifier, Keep, mlp, random_data, trainer
from tests.e2e.test_transparency import assert_identical, everything_left

TINY, AMPLE = 1e-6, 1.0


def fit(model, monitor, batches=80, **options):
    pl.seed_everything(1, verbose=False)
    trainer(monitor, max_epochs=1, **options).fit(model, random_data(8 * batches, 6))
    return monitor.summary()


def sgd(module=Classifier):
    return module(mlp(), torch.optim.SGD)


@pytest.mark.usefixtures("backend")
def test_a_tiny_budget_stretches_the_interval_says_so_once_and_reports_it(caplog):
    kept = Keep()
    with caplog.at_level(logging.WARNING, logger="lightning_gradguard"):
        summary = fit(sgd(), GradientMonitor(sinks=[kept], max_overhead=TINY, on_error="raise"))
    said = [record.message for record in caplog.records if "gradguard" in record.name]
    assert said == ["gradguard looks at one step in 1000 now, to stay below max_overhead=1e-06."]
    assert summary.interval == 1000
    assert [frame.step for frame in kept.frames] == list(range(25))
    assert (summary.observed_steps, summary.steps) == (25, 80)
    assert "25 steps observed, one in 1000, 80 made" in str(summary)


class Slow(Classifier):
    """Steps that take so long that watching costs little, however busy the machine."""

    def training_step(self, batch, batch_idx):
        time.sleep(0.03)
        return super().training_step(batch, batch_idx)


def test_an_ample_budget_looks_at_every_step_and_says_nothing(caplog):
    with caplog.at_level(logging.WARNING, logger="lightning_gradguard"):
        summary = fit(sgd(Slow), GradientMonitor(sinks=[], max_overhead=AMPLE, on_error="raise"))
    assert summary.interval == 1
    assert summary.observed_steps == 80
    assert not [record for record in caplog.records if "gradguard" in record.name]


def test_the_users_own_interval_is_stretched_in_multiples():
    kept = Keep()
    monitor = GradientMonitor(sinks=[kept], max_overhead=TINY, every_n_steps=3, on_error="raise")
    assert fit(sgd(), monitor).interval == 1002
    assert [frame.step for frame in kept.frames] == list(range(0, 25, 3))


class NanOnce(Classifier):
    """NaN in the gradients of one step, between two looks; its weights stay broken."""

    def on_after_backward(self):
        if self.global_step == 60:
            self.network[2].bias.grad.fill_(float("nan"))


class NanCleaned(NanOnce):
    """The same, but the step is not made with it."""

    def on_before_optimizer_step(self, optimizer):
        for parameter in self.parameters():
            parameter.grad.nan_to_num_(0.0)


@pytest.mark.parametrize("module", [NanOnce, NanCleaned])
def test_a_nan_between_two_looks_is_found_at_its_step(module):
    monitor = GradientMonitor(sinks=[], max_overhead=TINY, on_error="raise")
    assert fit(sgd(module), monitor).interval == 1000
    assert [(finding.kind, finding.step) for finding in monitor.alarms] == [("nonfinite", 60)]
    assert monitor.alarms[0].layers == ("network.2",)


def test_on_a_device_it_is_found_a_step_later(monkeypatch):
    monkeypatch.setattr("lightning_gradguard.devices.is_host", lambda _device: False)
    monitor = GradientMonitor(sinks=[], max_overhead=TINY, on_error="raise")
    fit(sgd(NanOnce), monitor)
    assert [(finding.kind, finding.step) for finding in monitor.alarms] == [("nonfinite", 61)]


class Overflows(Classifier):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * (1e6 if batch_idx == 60 else 1.0)


def test_a_step_that_the_scaler_refuses_between_two_looks_is_counted_on_the_host(backend):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    precision = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    monitor = GradientMonitor(sinks=[], max_overhead=TINY, on_error="raise")
    summary = fit(sgd(Overflows), monitor, plugins=[precision])
    assert summary.interval == 1000
    # On a device the answer comes when the step is over and its gradients are gone: docs/cost.md.
    assert summary.amp_overflows == (backend == "host")
    assert monitor.alarms == ()


@pytest.mark.usefixtures("backend")
def test_a_governed_run_leaves_what_an_unwatched_run_leaves():
    def run(callbacks):
        return everything_left(sgd, random_data(320, 6), callbacks, max_epochs=2)

    monitor = GradientMonitor(sinks=[], max_overhead=TINY, on_error="raise")
    assert_identical(run([monitor]), run([]))
    assert monitor.summary().interval == 1000


def test_accumulated_batches_are_one_step_to_the_governor():
    monitor = GradientMonitor(sinks=[], max_overhead=TINY, on_error="raise")
    summary = fit(sgd(), monitor, accumulate_grad_batches=4, batches=160)
    assert summary.interval == 1000
    assert summary.steps == 40


def test_a_second_fit_starts_with_every_step():
    monitor = GradientMonitor(sinks=[], max_overhead=TINY, on_error="raise")
    assert fit(sgd(), monitor).observed_steps == 25
    assert fit(sgd(), monitor).observed_steps == 25


def test_a_broken_loss_with_finite_gradients_is_never_thinned_either():
    class Strange(Classifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss + float("nan") if self.global_step == 71 else loss

    monitor = GradientMonitor(sinks=[], max_overhead=TINY, on_error="raise")
    fit(Strange(mlp(), torch.optim.SGD), monitor)
    assert [(f.kind, f.step) for f in monitor.alarms[:1]] == [("nonfinite", 71)]
