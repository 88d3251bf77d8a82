"""A monitor's life: both Lightnings, resume, interruption, several fits, what is logged."""

from __future__ import annotations

import gc
import json
import weakref

import lightning.pytorch as lightning_pl
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_gradguard import Finding, GradientMonitor, Severity
from lightning_gradguard.detectors import Vanishing
from tests.e2e.models import (
    Classifier,
    Keep,
    Poisoned,
    TwoOptimizers,
    hooks_left,
    mlp,
    random_data,
    trainer,
)


def test_both_lightnings_take_the_same_callback():
    class LightningClassifier(lightning_pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = mlp()

        training_step = Classifier.training_step
        forward = Classifier.forward

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    for root, model in (
        (lightning_pl.Trainer, LightningClassifier()),
        (pl.Trainer, Classifier(mlp())),
    ):
        monitor = GradientMonitor(sinks=[], on_error="raise")
        # Not in a list: only a Callback of that very distribution is taken then.
        fit = trainer(root=root, callbacks=monitor)
        fit.fit(model, random_data(32, 6))
        assert monitor.summary().observed_steps == 8


def test_a_nan_is_reported_at_its_step_even_if_it_is_the_last():
    monitor = GradientMonitor(sinks=[], on_error="raise")
    trainer(monitor, max_steps=3).fit(Poisoned(mlp()), random_data(32, 6))
    assert [(f.kind, f.step, f.severity) for f in monitor.alarms] == [
        ("nonfinite", 2, Severity.CRITICAL)
    ]
    assert "the loss is nan" in monitor.alarms[0].message
    assert "nonfinite" in str(monitor.summary())
    assert "NaN" in str(monitor.explain(monitor.alarms[0]))


def test_an_exception_loses_nothing():
    class Breaks(Poisoned):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 3:
                msg = "out of memory"
                raise RuntimeError(msg)

    keep = Keep()
    monitor = GradientMonitor(sinks=[keep], on_error="raise")
    model = Breaks(mlp())
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(monitor).fit(model, random_data(32, 6))
    assert [frame.step for frame in keep.frames] == [0, 1, 2]
    assert monitor.alarms[0].step == 2
    assert hooks_left(model) == 0


def test_nothing_of_it_is_left_on_model_or_optimizer():
    model = Classifier(nn.Sequential(mlp()))
    fit = trainer(GradientMonitor(sinks=[], on_error="raise"))
    fit.fit(model, random_data(32, 6))
    assert hooks_left(model) == 0
    assert not fit.optimizers[0]._optimizer_step_post_hooks


def test_a_resumed_run_says_what_an_uninterrupted_run_says(tmp_path):
    def run(max_epochs, ckpt_path=None):
        pl.seed_everything(5, verbose=False)
        monitor = GradientMonitor(sinks=[], on_error="raise")
        fit = trainer(monitor, max_epochs=max_epochs)
        fit.fit(Poisoned(mlp()), random_data(24, 6), ckpt_path=ckpt_path)
        return fit, monitor

    fit, half = run(1)
    fit.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = run(2, tmp_path / "half.ckpt")
    _, whole = run(2)
    assert resumed.findings == whole.findings != ()
    assert resumed.summary().steps == whole.summary().steps == 6
    assert half.summary().steps == 3
    assert half.findings[0].step == 2
    assert fit.global_step == 3
    # Plain types, so that the checkpoint loads with `weights_only=True`.
    assert json.loads(json.dumps(half.state_dict())).keys() == half.state_dict().keys()
    torch.load(tmp_path / "half.ckpt", weights_only=True)


def test_counts_and_the_noise_scale_go_on_after_a_checkpoint(tmp_path):
    class Overflows(Classifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step((batch[0], torch.zeros_like(batch[1])), batch_idx)
            return loss * (1e6 if batch_idx == 4 else 1.0)

    def run(max_epochs, ckpt_path=None):
        pl.seed_everything(5, verbose=False)
        monitor = GradientMonitor(sinks=[], on_error="raise")
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10_000)
        precision = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
        fit = trainer(
            monitor, max_epochs=max_epochs, accumulate_grad_batches=2, plugins=[precision]
        )
        fit.fit(Overflows(mlp()), random_data(8 * 30, 6), ckpt_path=ckpt_path)
        return fit, monitor.summary()

    fit, half = run(1)
    fit.save_checkpoint(tmp_path / "half.ckpt", weights_only=False)
    resumed, whole = run(2, tmp_path / "half.ckpt")[1], run(2)[1]
    assert half.noise_scales == {}
    assert resumed.noise_scales == pytest.approx(whole.noise_scales)
    assert whole.noise_scales[0] > 0.0
    assert (half.amp_overflows, resumed.amp_overflows, whole.amp_overflows) == (1, 2, 2)


def test_a_checkpoint_holds_what_was_found_at_its_very_step(tmp_path):
    every_three = pl.callbacks.ModelCheckpoint(
        dirpath=tmp_path, every_n_train_steps=3, filename="{step}", save_top_k=-1
    )
    monitor = GradientMonitor(sinks=[], on_error="raise")
    fit = trainer(monitor, every_three, enable_checkpointing=True, max_steps=5)
    fit.fit(Poisoned(mlp()), random_data(64, 6))
    saved = torch.load(tmp_path / "step=3.ckpt", weights_only=True)["callbacks"]
    state = saved[monitor.state_key]
    assert [finding["step"] for finding in state["inspector"]["findings"]] == [2]


def test_a_second_fit_of_another_model_starts_afresh():
    monitor = GradientMonitor(sinks=[], on_error="raise")
    trainer(monitor).fit(Poisoned(mlp()), random_data(32, 6))
    assert monitor.alarms
    trainer(monitor).fit(Classifier(mlp()), random_data(32, 6))
    assert monitor.alarms == ()
    assert monitor.summary().steps == 8


def test_two_monitors_of_one_trainer_keep_their_states_apart(tmp_path):
    first = GradientMonitor(include="network.0", sinks=[], name="a", on_error="raise")
    second = GradientMonitor(include="network.4", sinks=[], name="b", on_error="raise")
    fit = trainer(first, second)
    fit.fit(Classifier(mlp()), random_data(32, 6))
    fit.save_checkpoint(tmp_path / "both.ckpt")
    assert first.last_frame.layers == ("network.0",)
    assert second.last_frame.layers == ("network.4",)
    saved = torch.load(tmp_path / "both.ckpt", weights_only=True)["callbacks"]
    assert len(saved) == 2


def test_tensorboard_holds_the_numbers_of_the_frames(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    keep = Keep()
    probe = GradientMonitor(sinks=[keep], name="probe", on_error="raise")
    fit = trainer(GradientMonitor(on_error="raise"), probe, logger=logger, log_every_n_steps=2)
    fit.fit(Poisoned(mlp()), random_data(32, 6))
    events = EventAccumulator(logger.log_dir).Reload()
    norms = {e.step: e.value for e in events.Scalars("gradguard/global_grad_norm")}
    assert norms[1] == pytest.approx(keep.frames[1].global_grad_norm, rel=1e-6)
    layer = events.Scalars("gradguard_layers/grad_norm/network.2")[0]
    assert layer.value == pytest.approx(keep.frames[1].grad_norm[1], rel=1e-6)
    histogram = events.Histograms("gradguard_histograms/log2_abs_grad/network.0")[0]
    assert sum(histogram.histogram_value.bucket) == pytest.approx(6 * 8 + 8)
    assert (
        b"nonfinite"
        in events.Tensors("gradguard/findings/text_summary")[-1].tensor_proto.string_val[0]
    )


def test_other_loggers_get_the_scalars(tmp_path):
    logger = CSVLogger(tmp_path)
    monitor = GradientMonitor(on_error="raise")
    trainer(monitor, logger=logger, log_every_n_steps=2).fit(Classifier(mlp()), random_data(32, 6))
    logger.save()
    text = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text()
    assert "gradguard/global_grad_norm_at_update" in text.splitlines()[0]
    assert len(text.splitlines()) == 1 + 4


def test_a_parameter_that_never_gets_a_gradient_is_listed():
    class Spare(Classifier):  # its optimizer has all of them
        def __init__(self):
            super().__init__(mlp())
            self.spare = nn.Linear(2, 2)

    monitor = GradientMonitor(sinks=[], on_error="raise")
    trainer(monitor).fit(Spare(), random_data(32, 6))
    assert "2 parameters that never received a gradient: spare.weight, spare.bias" in str(
        monitor.summary()
    )


def test_a_nan_loss_under_a_scaler_is_an_alarm_although_no_step_is_made():
    precision = MixedPrecision("16-mixed", device="cpu", scaler=torch.amp.GradScaler("cpu"))
    monitor = GradientMonitor(sinks=[], on_error="raise")
    trainer(monitor, plugins=[precision]).fit(Poisoned(mlp()), random_data(32, 6))
    assert "nonfinite" in [finding.kind for finding in monitor.alarms]


def test_an_optimizer_that_is_replaced_in_mid_run_is_followed():
    class Replaces(Classifier):
        def on_train_epoch_start(self):
            self.trainer.optimizers = [torch.optim.SGD(self.parameters(), lr=0.1)]

    keep = Keep()
    monitor = GradientMonitor(sinks=[keep], on_error="raise")
    # Several times, so that a new one is likely to live where a forgotten one did.
    trainer(monitor, max_epochs=12).fit(Replaces(mlp()), random_data(32, 6))
    assert all(frame.stepped for frame in keep.frames)
    assert [frame.step for frame in keep.frames] == list(range(48))


def test_a_layer_that_thaws_is_watched_from_then_on():
    class Thaws(Classifier):
        def on_train_epoch_start(self):
            self.network[0].requires_grad_(self.current_epoch > 0)

    keep = Keep()
    monitor = GradientMonitor(sinks=[keep], on_error="raise")
    trainer(monitor).fit(Thaws(mlp()), random_data(32, 6))
    assert keep.frames[3].layers == ("network.2", "network.4")
    assert keep.frames[4].layers == ("network.0", "network.2", "network.4")


def test_other_detectors_than_those_of_the_checkpoint_start_afresh(tmp_path):
    fit = trainer(GradientMonitor(sinks=[]), max_epochs=1)
    fit.fit(Classifier(mlp()), random_data(32, 6))
    fit.save_checkpoint(tmp_path / "all.ckpt")
    monitor = GradientMonitor(sinks=[], detectors=[Vanishing()], on_error="raise")
    trainer(monitor).fit(Classifier(mlp()), random_data(32, 6), ckpt_path=tmp_path / "all.ckpt")
    assert monitor.summary().steps == 8


def test_a_finished_monitor_lets_go_of_the_model_and_says_its_summary_once():
    keep = Keep()
    monitor = GradientMonitor(sinks=[keep], on_error="raise")
    model = Classifier(mlp())
    fit = trainer(monitor)
    fit.fit(model, random_data(32, 6))
    monitor.on_exception(fit, model, RuntimeError("in a later test run"))
    assert len([event for event in keep.events if hasattr(event, "faults")]) == 1
    held = weakref.ref(model.network[0])
    # Lightning hangs two methods of the model on every callback; all else is ours.
    del fit, model, monitor.log, monitor.log_dict
    gc.collect()
    assert held() is None
    assert monitor.summary().is_healthy


def test_what_is_written_is_thinned_with_what_is_looked_at(tmp_path):
    logger = CSVLogger(tmp_path)
    monitor = GradientMonitor(every_n_steps=2, on_error="raise")
    trainer(monitor, logger=logger, log_every_n_steps=4, max_epochs=1).fit(
        Classifier(mlp()), random_data(128, 6)
    )
    logger.save()
    text = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text()
    steps = [
        line.split(",")[text.split("\n")[0].split(",").index("step")] for line in text.split()[1:]
    ]
    assert steps == ["4", "8", "12"]


def test_a_layer_that_freezes_does_not_end_the_watching_of_what_was_included():
    class Freezes(Classifier):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                self.network[0].requires_grad_(requires_grad=False)
                extra = nn.Parameter(torch.zeros(1))
                self.trainer.optimizers[0].add_param_group({"params": [extra]})

    monitor = GradientMonitor(include=["network.0"], sinks=[], on_error="raise")
    trainer(monitor).fit(Freezes(mlp()), random_data(32, 6))
    assert monitor.summary().observed_steps == 4


def test_the_same_trainer_with_another_model_starts_afresh():
    monitor = GradientMonitor(sinks=[], on_error="raise")
    fit = trainer(monitor, max_epochs=1)
    fit.fit(Poisoned(mlp()), random_data(32, 6))
    assert monitor.alarms
    fit.fit_loop.max_epochs = 2
    fit.fit(Classifier(mlp()), random_data(32, 6))
    assert monitor.alarms == ()


def test_every_n_steps_looks_at_one_step_in_so_many():
    keep = Keep()
    trainer(GradientMonitor(every_n_steps=3, sinks=[keep], on_error="raise")).fit(
        TwoOptimizers(), random_data(64, 6)
    )
    for index in (0, 1):
        steps = [f.step for f in keep.frames if f.optimizer_index == index]
        assert steps == [0, 3, 6, 9, 12, 15]


def test_on_finding_is_called_with_each_finding():
    said: list[Finding] = []
    monitor = GradientMonitor(on_finding=said.append, sinks=[], on_error="raise")
    trainer(monitor).fit(Poisoned(mlp()), random_data(32, 6))
    assert tuple(said) == monitor.findings != ()


def test_what_is_ignored_is_not_said():
    monitor = GradientMonitor(ignore="nonfinite", sinks=[], on_error="raise")
    trainer(monitor).fit(Poisoned(mlp()), random_data(32, 6))
    assert monitor.findings == ()
