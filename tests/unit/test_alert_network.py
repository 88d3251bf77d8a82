"""Channels against servers that answer as the network does."""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lightning_gradguard.alerts import Alert, Alerts, Apprise, MLflow, WandB, Webhook
from lightning_gradguard.alerts.base import RefusedError
from lightning_gradguard.alerts.http import request
from lightning_gradguard.alerts.incidents import Incidents
from lightning_gradguard.findings import Severity
from tests.alert_servers import certificate, refusing, serving
from tests.strategies import make_finding

_NUMBERS = itertools.count()

ALERT = Alert(
    kind="exploding",
    state="opened",
    severity=Severity.CRITICAL,
    message="norm 1e9",
    layers=("net.0",),
    step=50,
    run="logs/version_3",
    advice="clip by norm.",
)


@pytest.fixture
def to(monkeypatch):
    """Give a webhook for an address."""

    def webhook(address, **options):
        monkeypatch.setenv("GRADGUARD_WEBHOOK_URL", address)
        return Webhook(timeout_seconds=0.5, **options)

    return webhook


def test_a_webhook_posts_every_field_and_words_for_people(to):
    with serving() as server:
        to(server.address).send(ALERT)
        (got,) = server.got
    assert got["schema"] == "gradguard.alert/1"
    assert {key: got[key] for key in ("kind", "state", "severity", "step", "layers")} == {
        "kind": "exploding",
        "state": "opened",
        "severity": "critical",
        "step": 50,
        "layers": ["net.0"],
    }
    assert got["value"] is None
    assert got["title"] == "[CRITICAL] exploding in net.0 (logs/version_3)"
    assert "Try: clip by norm." in got["text"]


@pytest.mark.parametrize("answer", [500, 503, 429, "hang", "drip", "cut"])
def test_what_may_pass_is_an_error_to_try_again_after(answer, to):
    with serving(answer) as server:
        start = time.monotonic()
        with pytest.raises(OSError, match=r"\w"):
            to(server.address).send(ALERT)
        assert time.monotonic() - start < 3.0


def test_a_refused_connection_is_an_error_to_try_again_after(to):
    with pytest.raises(OSError, match=r"\w"):
        to(refusing()).send(ALERT)


@pytest.mark.parametrize("answer", [301, 302, 307, 308, 400, 401, 404, 410])
def test_what_will_not_pass_is_refused_and_no_redirect_is_followed(answer, to):
    with serving(answer) as server:
        with pytest.raises(RefusedError, match=str(answer)):
            to(server.address).send(ALERT)
        assert server.asked == 1


def test_an_answer_of_ten_megabytes_is_not_read(to):
    with serving("huge") as server:
        start = time.monotonic()
        to(server.address).send(ALERT)
        assert time.monotonic() - start < 2.0


def test_an_address_can_come_from_a_file(tmp_path):
    with serving() as server:
        file = tmp_path / "url"
        file.write_text(f"{server.address}\n")
        Webhook(url_file=str(file)).send(ALERT)
        assert len(server.got) == 1


@pytest.mark.parametrize(
    "address",
    ["", "ftp://h/x", "file:///etc/passwd", "https:///x", "h ttp://x", "https://me:pw123456@h/x"],
)
def test_an_address_that_is_none_is_refused_before_training_without_showing_it(address, to):
    with pytest.raises(ValueError, match="webhook") as error:
        Alerts(to(address)).open("run")
    assert not address or address not in str(error.value)


def test_a_certificate_that_nobody_signed_is_not_believed(tmp_path, to):
    with serving() as server:
        server.socket = certificate(tmp_path).wrap_socket(server.socket, server_side=True)
        with pytest.raises(OSError, match="CERTIFICATE"):
            to(server.address.replace("http://", "https://")).send(ALERT)
        assert server.got == []


def test_apprise_passes_it_on_and_logs_no_address(monkeypatch, caplog):
    caplog.set_level("DEBUG")
    with serving() as server:
        address = server.address.replace("http://", "json://")
        monkeypatch.setenv("GRADGUARD_APPRISE_URLS", address)
        channel = Apprise()
        assert channel.secrets() == (address,)
        channel.send(ALERT)
        (got,) = server.got
    assert got["title"] == "[CRITICAL] exploding in net.0 (logs/version_3)"
    assert got["type"] == "failure"
    assert "SECRET" not in caplog.text


def test_apprise_tries_those_again_that_it_could_not_reach_and_no_others(monkeypatch):
    with serving() as one, serving(500, 200) as other:
        addresses = f"{one.address} {other.address}".replace("http://", "json://")
        monkeypatch.setenv("GRADGUARD_APPRISE_URLS", addresses)
        channel, alert = Apprise(), replace(ALERT, id="a1")
        with pytest.raises(OSError, match="address 2 of 2: could not be reached"):
            channel.send(alert)
        channel.send(alert)
        assert (len(one.got), len(other.got)) == (1, 1)


def test_apprise_says_what_it_does_not_know_without_showing_it(monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("GRADGUARD_APPRISE_URLS", "nonsense://SECRET")
    with pytest.raises(ValueError, match="address 1 of 1") as error:
        Apprise().secrets()
    assert "SECRET" not in str(error.value) + caplog.text


def test_trackers_are_used_through_the_users_own_loggers():
    said, tags = [], {}
    wandb_run = SimpleNamespace(alert=lambda **fields: said.append(fields))
    client = SimpleNamespace(set_tag=lambda run, key, value: tags.update({key: (run, value)}))
    loggers = [
        SimpleNamespace(experiment=wandb_run),
        SimpleNamespace(experiment=client, run_id="r1"),
    ]
    wandb, mlflow = WandB(), MLflow()
    for channel in (wandb, mlflow):
        channel.connect(loggers)
        channel.send(ALERT)
    assert said[0]["level"] == "ERROR"
    assert said[0]["title"].startswith("[CRITICAL] exploding")
    assert tags["gradguard.status"] == ("r1", "critical: exploding")
    mlflow.send(Alert(kind="exploding", state="resolved", severity=Severity.ERROR, message="m"))
    assert tags["gradguard.status"] == ("r1", "healthy")


@pytest.mark.parametrize("channel", [WandB, MLflow])
def test_a_tracker_that_is_not_there_is_named_when_training_starts(channel):
    with pytest.raises(ValueError, match="Logger among the trainer's loggers"):
        Alerts(channel()).open("run", [SimpleNamespace()])


def test_a_heartbeat_is_a_get():
    with serving() as server:
        request(server.address)
        assert server.asked == 1


def open_desk(address, monkeypatch, **options):
    # A name of its own: a desk of another test may still be trying.
    name = f"GRADGUARD_URL_OF_{next(_NUMBERS)}"
    monkeypatch.setenv(name, address)
    return Alerts(Webhook(url_env=name), **options).open("run")


def test_a_server_that_fails_once_gets_the_alert_later(monkeypatch):
    with serving(500, 200) as server:
        desk = open_desk(server.address, monkeypatch)
        desk.put(make_finding(episode_id=1))
        assert [got["state"] for got in server.wait_for(1)] == ["opened"]
        desk.close(5.0)
        assert server.asked == 2
        assert desk.troubles == ()


@pytest.mark.parametrize("answer", ["hang", 500])
def test_an_end_waits_no_longer_than_told(answer, monkeypatch):
    with serving(answer) as server:
        desk = open_desk(server.address, monkeypatch)
        desk.put(make_finding(episode_id=1))
        start = time.monotonic()
        desk.close(0.5)
        assert time.monotonic() - start < 1.5
        until = time.monotonic() + 15.0
        while not desk.troubles and time.monotonic() < until:
            time.sleep(0.05)
        assert "Webhook" in desk.troubles[0]
        assert "SECRET" not in desk.troubles[0]


def test_a_queue_that_is_full_blocks_nobody_and_is_told(monkeypatch):
    desk = open_desk(refusing(), monkeypatch)
    monkeypatch.setattr(Incidents, "take", lambda *_, **__: time.sleep(1.0) or ())
    start = time.monotonic()
    for number in range(3000):
        desk.put(make_finding(episode_id=number))
    assert time.monotonic() - start < 0.5
    assert any("came faster" in text for text in desk.troubles)
    monkeypatch.undo()


def test_a_desk_leaves_no_thread(monkeypatch):
    before = threading.active_count()
    with serving() as server:
        open_desk(server.address, monkeypatch).close(5.0)
    assert threading.active_count() <= before


def test_the_json_of_an_alert_is_strict():
    text = json.dumps(ALERT.to_dict(), allow_nan=False)
    assert json.loads(text)["limit"] is None
