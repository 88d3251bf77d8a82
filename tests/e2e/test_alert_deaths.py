"""A training that dies says so, whenever it does, with what was found before."""

from __future__ import annotations

import os
import signal

import pytest
import pytorch_lightning as pl

from lightning_gradguard import GradientMonitor
from lightning_gradguard.alerts import Alerts
from tests.e2e.alerting import SECRET, fit, with_nan
from tests.e2e.models import Classifier, mlp, random_data


class Ends(Classifier):
    """Ends by what it is given, in a batch."""

    def __init__(self, end, batch=5):
        super().__init__(mlp())
        self.end, self.batch = end, batch

    def training_step(self, batch, batch_idx):
        if batch_idx == self.batch:
            self.end()
        return super().training_step(batch, batch_idx)


def raises(error):
    def end():
        raise error

    return end


def kinds(server):
    return [(got["kind"], got["severity"]) for got in server.got]


@pytest.fixture
def _signals():
    """Lightning ignores Ctrl-C for good once it was pressed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_training_that_dies_says_so_with_its_latest_findings_and_no_secret(server, tmp_path):
    lost = RuntimeError(f"lost the data at {SECRET}")
    with pytest.raises(RuntimeError, match="lost the data"):
        fit(tmp_path, GradientMonitor(alerts="webhook"), Ends(raises(lost)), with_nan(2))
    last = next(got for got in server.got if got["kind"] == "exception")
    assert last["severity"] == "critical"
    assert "RuntimeError: lost the data at ***" in last["message"]
    assert any("nonfinite" in line for line in last["recent"])


class Breaks(pl.Callback):
    """Raises in one hook."""

    def __init__(self, hook):
        def broken(*_args, **_more):
            msg = f"broken in {hook}"
            raise RuntimeError(msg)

        setattr(self, hook, broken)


HOOKS = ["setup", "on_fit_start", "on_sanity_check_start", "on_train_start", "on_train_end",
         "on_fit_end", "teardown"]  # fmt: skip


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("hook", HOOKS)
def test_whichever_callback_kills_a_training_in_whatever_hook_it_is_told_once(
    hook, is_first, server, tmp_path
):
    monitor, breaks = GradientMonitor(alerts="webhook"), Breaks(hook)
    model = Classifier(mlp())
    model.validation_step = lambda *_: None
    model.val_dataloader = lambda: random_data(8, 6)
    with pytest.raises(RuntimeError, match=f"broken in {hook}"):
        fit(tmp_path, [breaks, monitor] if is_first else [monitor, breaks], model)
    assert kinds(server) == [("exception", "critical")]
    assert f"broken in {hook}" in server.got[0]["message"]


@pytest.mark.parametrize("hook", ["prepare_data", "setup", "configure_optimizers", "on_fit_end"])
def test_a_model_that_kills_its_training_in_whatever_hook_is_told(hook, server, tmp_path):
    model = Classifier(mlp())
    setattr(model, hook, Breaks(hook).__dict__[hook])
    with pytest.raises(RuntimeError, match=f"broken in {hook}"):
        fit(tmp_path, GradientMonitor(alerts="webhook"), model)
    assert kinds(server) == [("exception", "critical")]


def test_a_validation_that_dies_is_no_training_that_does(server, tmp_path):
    trainer = fit(tmp_path, GradientMonitor(alerts="webhook"))
    model = Classifier(mlp())
    model.validation_step = Breaks("validation_step").validation_step
    with pytest.raises(RuntimeError, match="broken in validation_step"):
        trainer.validate(model, random_data(8, 6))
    assert server.asked == 0


def test_what_ends_a_training_is_raised_also_if_nobody_can_be_told(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("GRADGUARD_WEBHOOK_URL", raising=False)
    caplog.set_level("WARNING")
    with pytest.raises(RuntimeError, match="broken in setup"):
        fit(tmp_path, [Breaks("setup"), GradientMonitor(alerts="webhook")])
    assert "cannot tell how the training ended" in caplog.text


def test_nobody_is_told_of_a_death_where_all_is_switched_off(server, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADGUARD_DISABLE", "1")
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, [GradientMonitor(alerts="webhook"), Breaks("on_train_start")])
    assert server.asked == 0


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (3, ("exception", "critical")),
        ("no memory", ("exception", "critical")),
        (0, ("interrupted", "warning")),
        (None, ("interrupted", "warning")),
    ],
)
def test_an_exit_is_a_death_unless_it_says_that_all_is_well(code, told, server, tmp_path):
    with pytest.raises(SystemExit):
        fit(tmp_path, GradientMonitor(alerts="webhook"), Ends(raises(SystemExit(code))))
    assert kinds(server) == [told]


@pytest.mark.usefixtures("_signals")
def test_a_scheduler_that_ends_a_training_is_told_as_a_warning(server, tmp_path):
    model = Ends(lambda: os.kill(os.getpid(), signal.SIGTERM), batch=3)
    with pytest.raises(SystemExit):
        fit(tmp_path, GradientMonitor(alerts="webhook"), model)
    assert kinds(server) == [("interrupted", "warning")]


@pytest.mark.usefixtures("_signals")
def test_what_a_run_says_of_its_end_must_be_severe_enough(server, tmp_path):
    model = Ends(raises(SystemExit(0)))
    monitor = GradientMonitor(alerts=Alerts("webhook", min_severity="error"))
    with pytest.raises(SystemExit):
        fit(tmp_path, monitor, model)
    assert server.asked == 0


@pytest.mark.usefixtures("_signals")
def test_on_ctrl_c_what_was_just_found_is_told_and_the_key_is_not(server, tmp_path):
    # The batch after the one with the NaN: its finding still is on its way from the device.
    model = Ends(lambda: os.kill(os.getpid(), signal.SIGINT), batch=3)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, GradientMonitor(alerts="webhook"), model, with_nan(2))
    assert kinds(server) == [("nonfinite", "critical")]
    assert server.got[0]["step"] == 2
