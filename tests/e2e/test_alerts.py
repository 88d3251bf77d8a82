"""A training tells people of its faults, once, and shows no secret."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_gradguard import GradientGuard, GradientMonitor, load_run
from lightning_gradguard.alerts import Alerts, Email, Webhook
from tests.alert_servers import dripping, serving
from tests.e2e.alerting import SECRET, fit, with_nan
from tests.e2e.models import Classifier, mlp


def test_a_nan_that_is_left_out_is_told_once_and_so_is_its_end(server, tmp_path):
    guard = GradientGuard(
        on_nonfinite="skip", alerts=Alerts("webhook", tab_url="http://gpu7:6006/"), on_error="raise"
    )
    fit(tmp_path, guard, data=with_nan(50))
    assert [(got["kind"], got["state"]) for got in server.got] == [
        ("nonfinite", "opened"),
        ("nonfinite", "resolved"),
    ]
    opened, resolved = server.got
    assert (opened["step"], opened["since_step"]) == (50, 50)
    assert "left out this step" in opened["action"]
    assert opened["severity"] == "critical"
    assert opened["run"] == "lightning_logs/version_0"
    assert opened["link"] == (
        "http://gpu7:6006/#gradguard&p.gradguard.run=lightning_logs%2Fversion_0"
        f"&p.gradguard.layer={opened['layers'][0]}&p.gradguard.step=50"
    )
    assert opened["incident"] == resolved["incident"]
    assert resolved["step"] == 101


def test_a_healthy_training_tells_nobody(server, tmp_path):
    fit(tmp_path, GradientMonitor(alerts="webhook", on_error="raise"))
    assert server.asked == 0


def broken(*_args, **_more):
    msg = "a fault of ours"
    raise RuntimeError(msg)


def test_a_guard_that_can_act_no_more_says_so(server, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_gradguard.guard.Guard.decide", broken)
    fit(tmp_path, GradientGuard(clip="norm", alerts="webhook"))
    (got,) = [got for got in server.got if got["kind"] == "switched_off"]
    assert got["severity"] == "critical"
    assert "unprotected" in got["message"]


def test_a_monitor_that_can_watch_no_more_says_so(server, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_gradguard.inspector.Inspector.update", broken)
    with pytest.warns(UserWarning, match="stopped watching"):
        fit(tmp_path, GradientMonitor(alerts="webhook"))
    assert [(got["kind"], got["severity"]) for got in server.got] == [("switched_off", "error")]


def test_what_could_not_be_told_is_in_the_summary(tmp_path, monkeypatch):
    with serving(404) as server:
        monkeypatch.setenv("GRADGUARD_WEBHOOK_URL", server.address)
        monitor = GradientMonitor(alerts="webhook")
        fit(tmp_path, monitor, data=with_nan(3, steps=8))
    said = "not checked: alerts by Webhook: 1 lost (RefusedError: answered 404)"
    assert said in str(monitor.summary())


def test_an_address_that_is_missing_is_named_when_training_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("GRADGUARD_WEBHOOK_URL", raising=False)
    with pytest.raises(ValueError, match="GRADGUARD_WEBHOOK_URL, which is not set"):
        fit(tmp_path, GradientMonitor(alerts="webhook"))


@pytest.mark.parametrize("answer", ["hang", 500])
def test_a_training_ends_in_a_bounded_time_whatever_the_network_does(answer, tmp_path, monkeypatch):
    with serving(answer) as server:
        monkeypatch.setenv("GRADGUARD_WEBHOOK_URL", server.address)
        alerts = Alerts("webhook", flush_seconds=1.0)
        start = time.monotonic()
        fit(tmp_path, GradientMonitor(alerts=alerts), data=with_nan(3, steps=8))
        assert time.monotonic() - start < 6.0


class Settable(Classifier):
    def __init__(self, width: int = 8) -> None:
        super().__init__(mlp())
        self.save_hyperparameters()

    def train_dataloader(self):
        return with_nan(3, steps=12)


class Waits(pl.Callback):
    """Leaves time for a heartbeat."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 5:
            time.sleep(1.5)


def written(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_nothing_that_a_training_writes_holds_a_secret(server, tmp_path, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("GRADGUARD_SMTP_PASSWORD", SECRET)
    monkeypatch.setenv("HEART_WITH_SECRET", f"{server.address}/heart")
    with dripping() as (port, _):  # what hangs is named in the summary, and what fails
        hangs = f"json://me:{SECRET}@127.0.0.1:{port}/{SECRET}?token={SECRET}"
        monkeypatch.setenv(
            "GRADGUARD_APPRISE_URLS", f"{server.address} {hangs}".replace("http:", "json:")
        )
        password = Email("a@b.c", sender="d@e.f", host="127.0.0.1", port=port, user="me", tls="tls")
        alerts = Alerts(
            ["webhook", "log", "apprise", password],
            flush_seconds=3.0,
            heartbeat_url_env="HEART_WITH_SECRET",
            heartbeat_seconds=0.1,
        )
        monitor = GradientMonitor(alerts=alerts, report=True)
        logger = TensorBoardLogger(tmp_path)
        fit(tmp_path, [monitor, Waits()], Settable(), with_nan(3, steps=12), logger=logger)
    assert server.pinged > 0
    files = written(tmp_path)
    for ending in (".ckpt", "hparams.yaml", "report.html", "history.sqlite"):
        assert any(name.endswith(ending) for name in files), ending
    assert [name for name, data in files.items() if b"SECRET" in data] == []
    assert {"kind", "type"} <= {key for got in server.got for key in got}  # by webhook, by Apprise
    summary = str(monitor.summary())
    assert "alerts by Email" in summary
    for text in (repr(alerts), repr(monitor.summary()), caplog.text, summary):
        assert "SECRET" not in text
    with load_run(tmp_path) as run:
        assert "SECRET" not in str(dict(run.meta))


def test_lightningcli_saves_no_secret(server, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "trainer:\n"
        "  max_epochs: 1\n"
        "  accelerator: cpu\n"
        "  enable_progress_bar: false\n"
        "  enable_model_summary: false\n"
        f"  default_root_dir: {tmp_path}\n"
        "  callbacks:\n"
        "    - class_path: lightning_gradguard.GradientMonitor\n"
        "      init_args:\n"
        "        alerts:\n"
        "          class_path: lightning_gradguard.alerts.Alerts\n"
        "          init_args:\n"
        "            to: [webhook]\n"
        "            min_severity: error\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LightningCLI(Settable, args=["fit", "--config", str(config)])
    assert [got["kind"] for got in server.got][:1] == ["nonfinite"]
    files = written(tmp_path / "lightning_logs")
    assert any("config.yaml" in name and b"Alerts" in data for name, data in files.items())
    assert [name for name, data in files.items() if b"SECRET" in data] == []


def test_a_webhook_is_named_by_where_its_address_is(server):
    assert repr(Webhook()) == "Webhook(url_env='GRADGUARD_WEBHOOK_URL')"
