"""Settings of alerts can be copied and pickled, forks stay silent, and hostile text is harmless."""

from __future__ import annotations

import copy
import json
import logging
import multiprocessing
import os
import pickle
import re
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.alerts import (
    Alert,
    Alerts,
    Apprise,
    Log,
    MLflow,
    RefusedError,
    WandB,
    Webhook,
)
from lightning_gradguard.alerts import text as words
from lightning_gradguard.alerts.scrub import scrubber
from lightning_gradguard.alerts.secret import Secret
from lightning_gradguard.alerts.settings import _Stamp
from lightning_gradguard.findings import Severity
from lightning_gradguard.sinks.alerts import AlertSink
from tests.alert_servers import serving
from tests.strategies import make_finding


class Mine:
    """A channel of somebody's own."""

    min_severity = "critical"

    def __init__(self):
        self.got = []

    def send(self, alert):
        self.got.append(alert)


def test_a_channel_of_your_own_is_an_object_with_one_method():
    mine = Mine()
    desk = Alerts(mine).open("run")
    desk.put(make_finding(severity=Severity.ERROR, episode_id=1))
    desk.put(make_finding("exploding", severity=Severity.CRITICAL, episode_id=2))
    desk.close(5.0)
    assert [(alert.kind, alert.run) for alert in mine.got] == [("exploding", "run")]


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])  # noqa: S301 - our own
def test_settings_are_copied_and_pickled_without_a_secret(twin, monkeypatch):
    monkeypatch.setenv("GRADGUARD_WEBHOOK_URL", "https://h.example/xyzSECRETxyz")
    alerts = Alerts(["webhook", "log"], min_severity="error", heartbeat_url_env="HEART")
    assert repr(twin(alerts)) == repr(alerts)
    assert b"SECRET" not in pickle.dumps(alerts)


class Pager(Mine):
    """A channel with all that one may have."""

    def secrets(self):
        if "PAGER_TOKEN" not in os.environ:
            msg = "PAGER_TOKEN is missing"
            raise ValueError(msg)
        return (os.environ["PAGER_TOKEN"],)

    def connect(self, loggers):
        self.loggers = loggers

    def send(self, alert):
        super().send(alert)
        msg = f"no answer to {os.environ['PAGER_TOKEN']}"
        raise RefusedError(msg)


def test_a_channels_secrets_are_in_no_message_and_no_error_and_it_is_given_the_loggers(monkeypatch):
    pager, logger = Pager(), object()
    with pytest.raises(ValueError, match="PAGER_TOKEN is missing"):
        Alerts(pager).open("run")
    monkeypatch.setenv("PAGER_TOKEN", "t0pSECRET")
    desk = Alerts(pager).open("run", [logger])
    said = "wrong t0pSECRET"
    desk.put(Alert(kind="k", state="opened", severity=Severity.CRITICAL, message=said))
    desk.close(5.0)
    assert pager.loggers == [logger]
    assert pager.got[0].message == "wrong ***"
    assert desk.troubles == ("alerts by Pager: 1 lost (RefusedError: no answer to ***)",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "carrier pigeon"}, "`to` must be 'log' or 'webhook'"),
        ({"to": [3]}, "method `send`"),
        ({"to": [Webhook]}, r"Write Webhook\(\)"),
        ({"min_severity": "awful"}, "`min_severity` must be"),
        ({"cooldown_minutes": -1}, "`cooldown_minutes` must be a number above 0"),
        ({"most_per_hour": 0}, "`most_per_hour` must be a whole number"),
        ({"stalled_after_seconds": 0}, "`stalled_after_seconds` must be"),
        ({"tab_url": "gpu7:6006"}, "`tab_url` must begin with https://"),
    ],
)
def test_bad_settings_are_refused_with_what_was_required(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Alerts(**arguments)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_says_nothing_and_ends(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("URL_OF_FORK", server.address)
        desk = Alerts(Webhook(url_env="URL_OF_FORK")).open("run")
        with desk._outboxes[0]._lock:  # as if its thread just counted
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                desk.put(make_finding(episode_id=1))
                desk.close(5.0)
                os._exit(len(desk.troubles))
        assert os.waitpid(child, 0)[1] == 0
        time.sleep(1.5)
        assert server.asked == 0
        desk.put(make_finding(episode_id=1))
        desk.close(5.0)
        assert len(server.got) == 1


def test_a_log_has_the_level_of_the_alert_and_the_alert_itself(caplog):
    with caplog.at_level(logging.INFO, "lightning_gradguard"):
        for state in ("opened", "resolved"):
            Log().send(Alert(kind="dead", state=state, severity=Severity.ERROR, message="m"))
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO]
    assert caplog.records[0].alert["kind"] == "dead"


def test_a_secret_comes_from_a_file_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "of-the-environment")
    file = tmp_path / "secret"
    file.write_text(" of-the-file \n")
    assert Secret("it", "A_SECRET", str(file)).read() == "of-the-file"
    with pytest.raises(ValueError, match="cannot be read"):
        Secret("it", "A_SECRET", str(tmp_path / "none")).read()


texts = st.text(max_size=700)


@given(
    st.builds(
        Alert,
        kind=texts,
        state=st.sampled_from(["opened", "escalated", "resolved"]),
        severity=st.sampled_from(Severity),
        message=texts,
        layers=st.lists(texts, max_size=5).map(tuple),
        step=st.integers(),
        since_step=st.integers(),
        value=st.floats(),
        limit=st.floats(),
        unit=texts,
        action=texts,
        advice=texts,
        recent=st.lists(texts, max_size=3).map(tuple),
        suppressed=st.integers(0, 10**9),
        run=texts,
    )
)
def test_whatever_is_in_an_alert_its_json_is_strict_and_its_words_are_harmless(alert):
    read = json.loads(json.dumps(alert.to_dict(), allow_nan=False))
    assert read["schema"] == "gradguard.alert/1"
    assert set(read) == {"schema", *Alert.__dataclass_fields__}
    title, body = words.title(alert), words.body(alert)
    assert title.isprintable()
    assert all(line.isprintable() for line in body.split("\n"))
    assert len(title) < 3100
    assert len(body.encode("utf-8", "strict")) < 30_000


@pytest.mark.parametrize("channel", [Log, Webhook, WandB, MLflow])
def test_a_channel_can_be_for_what_is_severe_only(channel):
    assert channel(min_severity="critical").min_severity is Severity.CRITICAL
    with pytest.raises(ValueError, match="`min_severity` must be"):
        channel(min_severity="awful")


def test_a_channel_that_wants_to_end_the_program_ends_nothing():
    class Leaves(Mine):
        def send(self, alert):
            if not self.got:
                self.got.append("left")
                raise SystemExit
            super().send(alert)

    leaves = Leaves()
    leaves.min_severity = "info"
    desk = Alerts(leaves).open("run")
    desk.put(make_finding(severity=Severity.ERROR, episode_id=1))
    desk.close(10.0)
    assert [getattr(alert, "kind", alert) for alert in leaves.got] == ["left", "vanishing"]


@pytest.mark.parametrize("make", [lambda a: Webhook(url_env=a), lambda a: Webhook(url_file=a),
                                  lambda a: Alerts("log", heartbeat_url_env=a)])  # fmt: skip
def test_an_address_where_a_name_belongs_is_refused_and_not_shown(make):
    with pytest.raises(ValueError, match="not be given itself") as error:
        make("https://hooks.example/services/xyzSECRET")
    assert "SECRET" not in str(error.value)


def test_a_huge_message_is_cut():
    mine = Mine()
    desk = Alerts(mine).open("run")
    desk.put(Alert(kind="k", state="opened", severity=Severity.CRITICAL, message="x" * 10**7))
    desk.close(5.0)
    assert len(mine.got[0].message) == 4000


def test_an_error_whose_text_raises_is_told_by_its_name():
    class OddError(Exception):
        def __str__(self):
            raise ValueError

    assert words.said(OddError()) == "OddError"


def test_every_alert_has_a_name_of_its_own_and_each_channel_sees_the_same():
    mine, other = Mine(), Mine()
    desk = Alerts([mine, other]).open("run")
    for number in range(1, 4):
        finding = make_finding(f"k{number}", severity=Severity.CRITICAL, episode_id=number)
        desk.put(finding)
    desk.close(5.0)
    names = [alert.id for alert in mine.got]
    assert len(set(names)) == 3
    assert [alert.id for alert in other.got] == names
    assert all(names)


@pytest.mark.parametrize("severity", ["error", "critical"])
def test_what_a_run_says_of_itself_must_be_severe_enough(severity):
    mine = Mine()
    mine.min_severity = "info"
    desk = Alerts(mine, min_severity=severity).open("run")
    AlertSink(desk).died(SystemExit(0), is_wish=True)
    AlertSink(desk).switched_off("a fault of ours", is_guard=False)
    desk.close(5.0)
    assert [alert.kind for alert in mine.got] == ["switched_off"] * (severity == "error")


def test_two_ends_of_a_run_that_was_resumed_are_two_incidents():
    mine = Mine()
    for _ in range(2):
        desk = Alerts(mine).open("run")
        AlertSink(desk, flush_seconds=5.0).died(ValueError("no"), is_wish=False)
        desk.close(5.0)
    assert len({alert.incident for alert in mine.got}) == 2


def use(alerts, address):
    """What a process that was spawned does with alerts that were pickled."""
    os.environ["URL_OF_SPAWN"] = address
    desk = alerts.open("run")
    desk.put(make_finding(severity=Severity.ERROR, episode_id=1))
    desk.close(10.0)


def test_a_spawned_process_tells_by_alerts_that_were_pickled():
    alerts = Alerts(Webhook(url_env="URL_OF_SPAWN"), heartbeat_url_env="URL_OF_SPAWN")
    with serving() as server:
        child = multiprocessing.get_context("spawn").Process(
            target=use, args=(alerts, server.address)
        )
        child.start()
        child.join(60.0)
        assert child.exitcode == 0
        assert [(got["kind"], got["run"]) for got in server.got] == [("vanishing", "run")]


HOSTILE = "<!channel> <http://evil|click> @everyone [you won](http://evil)"


def test_no_chat_finds_a_mention_or_a_hidden_link_in_the_words_of_an_alert(monkeypatch):
    alert = Alert(
        kind="k", state="opened", severity=Severity.ERROR, message=HOSTILE, layers=(HOSTILE,)
    )
    said = []
    wandb = WandB()
    wandb.connect([SimpleNamespace(experiment=SimpleNamespace(alert=lambda **f: said.append(f)))])
    wandb.send(alert)
    with serving() as server:
        monkeypatch.setenv("GRADGUARD_WEBHOOK_URL", server.address)
        Webhook().send(alert)
        (got,) = server.got
        monkeypatch.setenv("GRADGUARD_APPRISE_URLS", server.address.replace("http:", "json:"))
        Apprise().send(alert)
        by_apprise = server.got[1]
    assert got["message"] == HOSTILE
    shown = [got["title"], got["text"], by_apprise["title"], by_apprise["message"]]
    for text in (*shown, said[0]["title"], said[0]["text"]):
        assert not re.search(r"[<>@]|\]\(", text)
        assert "!channel" in text


def test_an_address_given_as_a_channel_is_refused_and_not_shown():
    with pytest.raises(ValueError, match="GRADGUARD_WEBHOOK_URL") as refused:
        Alerts("https://hooks.example.com/services/T0SECRET")
    assert "T0SECRET" not in str(refused.value)


@pytest.mark.parametrize("found", ["T0SECRET", b"T0SECRET", ("T0SECRET", ""), None, (5,)])
def test_secrets_that_are_no_list_of_texts_are_refused_and_not_shown(found):
    class Own:
        def send(self, alert):
            """Send nothing."""

        def secrets(self):
            return found

    with pytest.raises(ValueError, match="`secrets` of Own must return a list of texts") as refused:
        Alerts(Own()).secrets()
    assert "T0SECRET" not in str(refused.value)


def test_an_end_that_never_comes_is_refused():
    with pytest.raises(ValueError, match="`flush_seconds` must be finite"):
        Alerts(flush_seconds=float("inf"))


@pytest.mark.parametrize("layer", ["T0SECRETxyz", "x" * 3_000_000])
def test_a_link_holds_no_secret_and_is_bounded(layer):
    stamp = _Stamp("run", "http://localhost:6006", scrubber(["T0SECRETxyz"]))
    names = {"kind": "k" * 1_000_000, "unit": "u" * 1_000_000}
    alert = stamp(
        Alert(state="opened", severity=Severity.ERROR, message="m", layers=(layer,), **names)
    )
    assert "p.gradguard.layer" not in alert.link
    assert "T0SECRETxyz" not in json.dumps(alert.to_dict())
    assert len(json.dumps(alert.to_dict())) < 50_000
    assert "p.gradguard.layer=net.0" in stamp(replace(alert, layers=("net.0",))).link
