"""Bad input, odd surroundings, and faults of the monitor itself: training goes on."""

from __future__ import annotations

import math
import re
import warnings

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from lightning_gradguard import GradientMonitor
from lightning_gradguard.detectors import NonFinite
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


@pytest.mark.parametrize("options", [{"barebones": True}, {"fast_dev_run": True}])
def test_bare_trainers_are_watched_all_the_same(options, capsys):
    monitor = GradientMonitor(on_error="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning comments on these modes
        fit = pl.Trainer(accelerator="cpu", callbacks=[monitor], max_steps=2, **options)
        fit.fit(Classifier(mlp()), random_data(32, 6))
    assert monitor.summary().observed_steps >= 1
    assert "healthy" in capsys.readouterr().err


def test_a_model_without_trainable_parameters_is_named_and_left_alone():
    class Frozen(Classifier):
        def training_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return None

    model = Frozen(mlp().requires_grad_(requires_grad=False))
    monitor = GradientMonitor(on_error="raise")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(monitor).fit(model, random_data(32, 6))
    assert any("trainable parameters, got one with none" in str(w.message) for w in caught)
    assert monitor.summary().observed_steps == 0


def test_steps_without_gradients_are_no_fault():
    class Skips(Classifier):
        def training_step(self, batch, batch_idx):
            return None if batch_idx % 2 else super().training_step(batch, batch_idx)

    monitor = GradientMonitor(sinks=[], on_error="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning remarks on the None
        trainer(monitor).fit(Skips(mlp()), random_data(32, 6))
    assert monitor.alarms == ()
    assert monitor.summary().observed_steps == 4


def test_an_unknown_glob_is_named_before_training_starts():
    with pytest.raises(ValueError, match=r"No parameter matches include='encoder.\*'. The model's"):
        trainer(GradientMonitor(include=["encoder.*"])).fit(Classifier(mlp()), random_data(32, 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "`every_n_steps` must be a whole number of at least 1, got 0."),
        ({"max_overhead": 0.0}, "`max_overhead` must be a share above 0 and up to 1, such as"),
        ({"max_overhead": 2}, "`max_overhead` must be a share above 0 and up to 1, such as 0.02"),
        ({"max_overhead": True}, "`max_overhead` must be a share .* such as 0.02, got True."),
        ({"group_by": "layer"}, "`group_by` must be 'module' or 'parameter', got 'layer'."),
        ({"on_error": "ignore"}, "`on_error` must be 'warn' or 'raise', got 'ignore'."),
        ({"ignore": ["vanishin"]}, "`ignore` must name a kind of finding, got 'vanishin'"),
    ],
)
def test_a_wrong_option_says_what_was_required_and_what_came(options, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        GradientMonitor(**options)


def test_a_failing_sink_is_switched_off_and_named_and_training_goes_on():
    class Broken:
        def emit(self, event):
            msg = "disk full"
            raise OSError(msg)

    keep = Keep()
    monitor = GradientMonitor(sinks=[Broken(), keep])
    with pytest.warns(UserWarning, match="Broken was switched off at step 0: OSError: disk full"):
        trainer(monitor).fit(Classifier(mlp()), random_data(32, 6))
    assert len(keep.frames) == 8
    assert "Broken was switched off" in str(monitor.summary())


def test_a_full_disk_costs_the_logs_and_nothing_else(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    logger = TensorBoardLogger(tmp_path)
    monkeypatch.setattr(logger.experiment, "add_scalar", full)
    monitor = GradientMonitor()
    with pytest.warns(UserWarning, match="TensorBoardSink was switched off at step 1: OSError"):
        trainer(monitor, logger=logger, log_every_n_steps=2).fit(
            Classifier(mlp()), random_data(32, 6)
        )
    assert monitor.summary().observed_steps == 8


def test_an_on_finding_that_fails_is_switched_off_and_named():
    def fails(_finding):
        msg = "no network"
        raise ConnectionError(msg)

    monitor = GradientMonitor(on_finding=fails, sinks=[])
    with pytest.warns(UserWarning, match="on_finding was switched off at step 2: Connection"):
        trainer(monitor).fit(Poisoned(mlp()), random_data(32, 6))
    assert "on_finding was switched off" in str(monitor.summary())


def test_a_failing_detector_is_switched_off_and_the_others_go_on():
    class Faulty:
        def update(self, frame):
            msg = "a bug"
            raise RuntimeError(msg)

    monitor = GradientMonitor(detectors=[Faulty(), NonFinite()], sinks=[])
    with pytest.warns(UserWarning, match="Faulty was switched off at step 0: RuntimeError: a bug"):
        trainer(monitor).fit(Poisoned(mlp()), random_data(32, 6))
    assert [finding.kind for finding in monitor.alarms] == ["nonfinite"]
    assert "Faulty was switched off" in str(monitor.summary())


def test_a_fault_of_the_monitor_is_warned_of_once_and_training_goes_on(monkeypatch):
    def broken(*_):
        msg = "a bug"
        raise RuntimeError(msg)

    monkeypatch.setattr("lightning_gradguard.measure.gradient_sums", broken)
    monitor = GradientMonitor(sinks=[])
    model = Classifier(mlp())
    fit = trainer(monitor)
    with pytest.warns(UserWarning, match="stopped watching; training goes on") as caught:
        fit.fit(model, random_data(32, 6))
    assert len([w for w in caught if "stopped watching" in str(w.message)]) == 1
    assert fit.global_step == 8
    assert hooks_left(model) == 0
    assert not monitor.summary().is_healthy
    assert "RuntimeError: a bug" in str(monitor.summary())


def test_the_environment_switches_everything_off(monkeypatch):
    monkeypatch.setenv("GRADGUARD_DISABLE", "1")
    monitor = GradientMonitor(on_error="raise")
    trainer(monitor).fit(Poisoned(mlp()), random_data(32, 6))
    assert monitor.findings == ()
    assert monitor.last_frame is None
    assert "switched off by the environment variable GRADGUARD_DISABLE" in str(monitor.summary())


def test_an_optimizer_without_a_learning_rate_is_watched():
    class Rateless(torch.optim.SGD):
        def step(self, closure=None):
            loss = closure()
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data -= 0.01 * parameter.grad
            return loss

    class Model(Classifier):
        def configure_optimizers(self):
            optimizer = Rateless(self.parameters(), lr=0.1)
            optimizer.param_groups[0]["lr"] = None
            return optimizer

    monitor = GradientMonitor(sinks=[], on_error="raise")
    trainer(monitor).fit(Model(mlp()), random_data(32, 6))
    assert monitor.summary().observed_steps == 8
    assert math.isnan(monitor.last_frame.learning_rates[0])


def test_an_optimizer_without_step_hooks_is_watched_without_its_updates():
    class Plain:
        """All that Lightning asks of an optimizer."""

        def __init__(self, parameters):
            self.param_groups = [{"params": list(parameters), "lr": 0.1}]
            self.state, self.defaults = {}, {}

        def step(self, closure=None):
            loss = closure()
            for parameter in self.param_groups[0]["params"]:
                parameter.data -= 0.1 * parameter.grad
            return loss

        def zero_grad(self, set_to_none=True):  # noqa: FBT002 - Lightning's signature
            for parameter in self.param_groups[0]["params"]:
                parameter.grad = None

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    class Model(Classifier):
        def configure_optimizers(self):
            return Plain(self.parameters())

    keep = Keep()
    monitor = GradientMonitor(sinks=[keep], on_error="raise")
    trainer(monitor).fit(Model(mlp()), random_data(32, 6))
    assert [frame.step for frame in keep.frames] == list(range(8))
    assert all(frame.stepped for frame in keep.frames)
    assert "updates of optimizer 0, which has no step hooks" in str(monitor.summary())


@pytest.mark.filterwarnings("ignore:`torch.jit.script")
def test_a_scripted_module_is_watched_from_outside():
    network = nn.Sequential(nn.Linear(6, 8), torch.jit.script(nn.Linear(8, 3)))
    monitor = GradientMonitor(sinks=[], on_error="raise")
    trainer(monitor).fit(Classifier(network), random_data(32, 6))
    assert monitor.last_frame.layers == ("network.0", "network.1")


def test_a_state_that_does_not_fit_is_named_and_left_aside(tmp_path):
    fit = trainer(GradientMonitor(sinks=[]), max_epochs=1)
    fit.fit(Classifier(mlp()), random_data(32, 6))
    fit.save_checkpoint(tmp_path / "old.ckpt")
    saved = torch.load(tmp_path / "old.ckpt", weights_only=True)
    (state,) = saved["callbacks"].values()
    del state["observed"]
    torch.save(saved, tmp_path / "old.ckpt")
    monitor = GradientMonitor(sinks=[])
    with pytest.warns(UserWarning, match="cannot read the state in the checkpoint"):
        trainer(monitor).fit(Classifier(mlp()), random_data(32, 6), ckpt_path=tmp_path / "old.ckpt")
    assert monitor.summary().observed_steps == 4


def test_a_vector_loss_is_taken_as_its_mean():
    class Vector(TwoOptimizers):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()[1]
            losses = self.second(self.first(batch[0])).square().mean(dim=1)
            optimizer.zero_grad()
            self.expected = losses.mean().item()
            self.manual_backward(losses, gradient=torch.ones_like(losses))
            optimizer.step()

    model = Vector()
    monitor = GradientMonitor(sinks=[], on_error="raise")
    trainer(monitor).fit(model, random_data(32, 6))
    assert monitor.last_frame.loss == pytest.approx(model.expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detectors": [NonFinite]}, "got the class NonFinite. Write NonFinite()."),
        ({"sinks": "console"}, "must be a list of objects with a method `emit`, got 'console'."),
        ({"sinks": [3]}, "must be objects with a method `emit`, got 3."),
        ({"on_finding": "x"}, "`on_finding` must be a function, got 'x'."),
    ],
)
def test_a_wrong_part_says_what_was_required_and_what_came(options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        GradientMonitor(**options)


@pytest.mark.parametrize("value", ["false", "0", "no"])
def test_a_no_in_the_environment_is_no_wish_to_switch_off(monkeypatch, value):
    monkeypatch.setenv("GRADGUARD_DISABLE", value)
    monitor = GradientMonitor(sinks=[], on_error="raise")
    trainer(monitor).fit(Classifier(mlp()), random_data(32, 6))
    assert monitor.summary().is_healthy


def test_a_model_that_cannot_be_looked_at_is_trained_all_the_same(monkeypatch):
    def broken(*_, **__):
        msg = "no hooks here"
        raise RuntimeError(msg)

    monkeypatch.setattr("lightning_gradguard.callbacks.monitor.Probe", broken)
    monitor = GradientMonitor(sinks=[])
    fit = trainer(monitor)
    with pytest.warns(UserWarning, match="cannot watch this training, which goes on without it"):
        fit.fit(Classifier(mlp()), random_data(32, 6))
    assert fit.global_step == 8
    assert "nothing was observed: RuntimeError: no hooks here" in str(monitor.summary())


def test_a_hook_that_fails_stops_the_watching_and_not_the_training(monkeypatch):
    def broken(*_):
        msg = "an odd trainer"
        raise RuntimeError(msg)

    monkeypatch.setattr("lightning_gradguard.trainers.learning_rates", broken)
    monitor = GradientMonitor(sinks=[])
    fit = trainer(monitor)
    with pytest.warns(UserWarning, match="stopped watching; training goes on. RuntimeError"):
        fit.fit(Classifier(mlp()), random_data(32, 6))
    assert fit.global_step == 8
    assert not monitor.summary().is_healthy


def test_a_strategy_that_keeps_parts_of_gradients_is_refused_by_name():
    class FSDPStrategy(pl.strategies.SingleDeviceStrategy):
        pass

    monitor = GradientMonitor(on_error="raise")
    fit = trainer(monitor, strategy=FSDPStrategy(device="cpu"))
    with pytest.warns(UserWarning, match="whole gradients on each rank, got FSDPStrategy"):
        fit.fit(Classifier(mlp()), random_data(32, 6))
    assert "got FSDPStrategy" in str(monitor.summary())


def test_a_nan_that_ends_the_run_is_no_overflow_where_there_is_no_scaler():
    class Strict(pl.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            gradient = module.network[0].weight.grad
            if trainer.global_step == 3:
                gradient.fill_(float("nan"))

    class Raises(pl.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if trainer.global_step == 3:
                msg = "a NaN"
                raise ValueError(msg)

    monitor = GradientMonitor(sinks=[], on_error="raise")
    with pytest.raises(ValueError, match="a NaN"):
        trainer(Strict(), monitor, Raises()).fit(Classifier(mlp()), random_data(64, 6))
    assert [finding.kind for finding in monitor.findings] == ["nonfinite"]
    assert monitor.summary().amp_overflows == 0
