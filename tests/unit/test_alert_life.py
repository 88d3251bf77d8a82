"""Settings of alerts can be copied and pickled, forks stay silent, and hostile text is harmless."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.alerts import Alert, Alerts, Log, MLflow, WandB, Webhook
from lightning_gradguard.alerts import text as words
from lightning_gradguard.alerts.secret import Secret, scrub
from lightning_gradguard.findings import Severity
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
        child = os.fork()
        if child == 0:
            desk.put(make_finding(episode_id=1))
            desk.close(5.0)
            os._exit(0)
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


@pytest.mark.parametrize(
    "leak",
    [
        "https://me:passw0rd@h.example/services/T0123456?token=abcdefgh",
        "/services/T0123456",
        "abcdefgh",
        "passw0rd",
    ],
)
def test_no_part_of_an_address_is_left_in_a_text(leak):
    address = "https://me:passw0rd@h.example/services/T0123456?token=abcdefgh"
    found = scrub(f"no answer from {leak}!", [address])
    for part in ("passw0rd", "T0123456", "abcdefgh"):
        assert part not in found


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


def test_what_has_not_come_to_an_end_is_told():
    class Blocks(Mine):
        def send(self, alert):
            time.sleep(5.0)

    blocks = Blocks()
    blocks.min_severity = "info"
    desk = Alerts(blocks).open("run")
    desk.put(make_finding(episode_id=1))
    time.sleep(1.0)
    desk.close(0.1)
    assert any("did not come to an end" in text for text in desk.troubles)


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


@pytest.mark.parametrize("leak", ["s3cr3t!tok3n", "s3cr3t%21tok3n"])
def test_a_token_is_hidden_in_either_of_its_forms(leak):
    assert leak not in scrub(f"got {leak}.", ["https://h.example/s3cr3t%21tok3n/x"])
