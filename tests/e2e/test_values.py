"""Every number of every frame equals an independent computation in float64, whatever the mode."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn

from lightning_gradguard import GradientMonitor
from tests.e2e import float64
from tests.e2e.models import (
    Classifier,
    Keep,
    TwoOptimizers,
    mlp,
    random_data,
    recurrent,
    trainer,
)
from tests.e2e.modes import MODES, Mode, Noted, Words, mode, scaled


def watch(row: Mode, *callbacks: Any) -> tuple[list[Any], float64.Oracle, GradientMonitor]:
    """Train, and return what was seen and what should have been."""
    oracle, kept = float64.Oracle(**row.oracle), Keep()
    monitor = GradientMonitor(sinks=[kept], on_error="raise", exact=row.exact)
    pl.seed_everything(3, verbose=False)
    options = {"log_every_n_steps": 1, **row.options}
    if row.uses_scaler:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        options["plugins"] = [MixedPrecision("16-mixed", device="cpu", scaler=scaler)]
    trainer(oracle, monitor, *callbacks, **options).fit(row.model(), random_data(*row.shape))
    return kept.frames, oracle, monitor


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", MODES)
def test_every_number_of_every_frame_equals_float64(name):
    row = MODES[name]
    frames, oracle, monitor = watch(row)
    assert frames
    assert monitor.summary().steps == len(frames) == sum(map(len, oracle.steps.values()))
    for index, steps in oracle.steps.items():
        mine = [frame for frame in frames if frame.optimizer_index == index]
        for frame, expected in zip(mine, steps, strict=True):
            float64.assert_equal(
                frame,
                expected,
                rel=row.rel,
                sampled_rel=row.sampled_rel,
                sees_update=row.sees_update,
            )
    if row.sees_update and row.clips is not None:
        assert (frames[-1].clip_coefficient < 0.999) == row.clips


def test_a_window_is_the_mean_over_the_batches_that_are_really_in_it():
    class Alone(pl.Callback):
        """Compute the gradient of a window's mean loss in float64, with a copy of the network."""

        def __init__(self):
            self.batches, self.norms, self.losses = [], [], []

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.batches.append(batch)

        def on_before_optimizer_step(self, trainer, module, optimizer):
            network = copy.deepcopy(module.network).double()
            network.zero_grad()
            x, y = (torch.cat(parts) for parts in zip(*self.batches, strict=True))
            loss = nn.functional.cross_entropy(network(x.double()), y)
            loss.backward()
            squares = [p.grad.square().sum().item() for p in network.parameters()]
            self.norms.append(sum(squares) ** 0.5)
            self.losses.append(loss.item())
            self.batches = []

    alone = Alone()
    frames, _, _ = watch(MODES["accumulation, short window"], alone)
    assert [frame.accumulated_batches for frame in frames] == [4, 4, 1, 4, 4, 1]
    assert [frame.window_correction for frame in frames] == [1, 1, 4, 1, 1, 4]
    assert [frame.global_grad_norm for frame in frames] == pytest.approx(alone.norms, rel=1e-5)
    assert [frame.loss for frame in frames] == pytest.approx(alone.losses, rel=1e-5)


def test_the_first_batch_of_a_window_is_measured_alone():
    class First(pl.Callback):
        def __init__(self):
            self.norms = []

        def on_after_backward(self, trainer, module):
            gradients = [p.grad.double().flatten() * 4 for p in module.parameters()]
            if trainer.fit_loop.batch_idx % 4 == 0:
                self.norms.append(torch.cat(gradients).norm().item())

    first = First()
    frames, _, _ = watch(MODES["accumulation, short window"], first)
    assert [f.first_batch_grad_norm for f in frames] == pytest.approx(first.norms, rel=1e-6)
    assert {f.first_batch_grad_norm for f in watch(MODES["fp32"])[0]} == {None}


class Overflows(Noted):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * (1e6 if batch_idx == 1 else 1.0)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_refused_is_a_notice_and_no_alarm(fused):
    frames, _, monitor = watch(scaled(module=Overflows, fused=fused, max_epochs=1))
    assert [frame.stepped for frame in frames] == [True, False, True, True]
    assert [finding.kind for finding in monitor.findings] == ["amp_overflow"]
    assert monitor.alarms == ()
    assert monitor.summary().amp_overflows == 1


@pytest.mark.usefixtures("backend")
def test_an_infinite_gradient_without_a_scaler_is_no_overflow_of_its():
    _, _, monitor = watch(MODES["broken"])
    assert monitor.summary().amp_overflows == 0
    assert {finding.kind for finding in monitor.alarms} >= {"nonfinite"}


@pytest.mark.usefixtures("backend")
def test_a_sparse_gradient_that_stores_nothing_is_zero():
    class Silent(Noted):
        def training_step(self, batch, batch_idx):
            none = torch.empty(0, dtype=torch.long)
            return super().training_step(batch, batch_idx) + self.network.words(none).sum()

    class Mute(Words):
        def forward(self, inputs):
            return self.head(inputs[:, :5])

    frames, _, _ = watch(mode(lambda: Mute(900, 5), module=Silent))
    for frame in frames:
        row = frame.layers.index("network.words")
        assert frame.grad_norm[row] == frame.grad_abs_max[row] == frame.grad_mean[row] == 0.0
        assert frame.zero_fraction[row] == 1.0


def test_a_profile_over_time_goes_to_the_optimizer_of_its_layer():
    class Pair(TwoOptimizers):
        def __init__(self):
            super().__init__()
            self.core = torch.nn.GRU(2, 6, batch_first=True)

        def training_step(self, batch, batch_idx):
            output = self.second(self.first(self.core(batch[0])[0][:, -1]))
            loss = torch.nn.functional.cross_entropy(output, batch[1])
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self):
            late = [*self.second.parameters(), *self.core.parameters()]
            return [torch.optim.SGD(self.first.parameters(), lr=0.1), torch.optim.SGD(late, lr=0.1)]

    kept = Keep()
    monitor = GradientMonitor(sinks=[kept], on_error="raise")
    trainer(monitor, max_steps=2).fit(Pair(), random_data(16, 12, 2))
    profiles = {frame.optimizer_index: set(frame.time_profiles) for frame in kept.frames[:2]}
    assert profiles == {0: set(), 1: {"core"}}


def test_a_line_search_over_accumulated_batches_has_no_short_window():
    kept = Keep()
    monitor = GradientMonitor(sinks=[kept], on_error="raise")
    model = Classifier(mlp(), torch.optim.LBFGS, max_iter=4)
    trainer(monitor, accumulate_grad_batches=4, max_epochs=1).fit(model, random_data(64, 6))
    assert [frame.accumulated_batches for frame in kept.frames] == [4, 4]
    assert [frame.window_correction for frame in kept.frames] == [1.0, 1.0]


def test_a_profile_over_time_is_that_of_the_first_batch_as_if_it_were_alone():
    profiles = []
    for batches in (1, 4):
        kept = Keep()
        monitor = GradientMonitor(sinks=[kept], on_error="raise")
        pl.seed_everything(3, verbose=False)
        model = Classifier(recurrent(), torch.optim.SGD)
        options = {"accumulate_grad_batches": batches, "max_epochs": 1}
        trainer(monitor, **options).fit(model, random_data(32, 12, 2))
        profiles.append(kept.frames[0].time_profiles["network.0"])
        assert not [reason for reason in monitor.summary().unchecked if "time steps" in reason]
    np.testing.assert_allclose(profiles[1], profiles[0], rtol=1e-5)
