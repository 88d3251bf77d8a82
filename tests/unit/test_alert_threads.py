"""What blocks holds up nothing but itself: not the training, not its end, not another channel."""

from __future__ import annotations

import statistics
import threading
import time

import pytest

from lightning_gradguard.alerts import Alerts, Webhook
from lightning_gradguard.alerts.desk import Desk
from lightning_gradguard.alerts.incidents import Incidents
from lightning_gradguard.alerts.worker import Worker
from lightning_gradguard.findings import Severity
from tests.alert_servers import dripping, serving
from tests.strategies import make_finding


class Keeps:
    """Keeps what it gets, and when."""

    def __init__(self):
        self.got = []

    def send(self, alert):
        self.got.append((alert.kind, alert.state))

    def wait_for(self, count, seconds=10.0):
        until = time.monotonic() + seconds
        while len(self.got) < count and time.monotonic() < until:
            time.sleep(0.01)
        return list(self.got)


class Blocks:
    """Never comes back, until it is let go."""

    def __init__(self):
        self.free, self.has_begun = threading.Event(), threading.Event()

    def send(self, alert):
        self.has_begun.set()
        self.free.wait(60.0)


@pytest.fixture
def blocks():
    """Give a channel that blocks."""
    channel = Blocks()
    yield channel
    channel.free.set()


def fault(number=1):
    layers = (f"layer{number}",)
    return make_finding(severity=Severity.CRITICAL, episode_id=number, layers=layers)


def test_a_channel_that_blocks_holds_up_no_other(blocks):
    keeps = Keeps()
    desk = Alerts([blocks, keeps, blocks]).open("run")
    desk.put(fault(1))
    assert blocks.has_begun.wait(10.0)
    for number in range(2, 5):
        desk.put(fault(number))
    assert keeps.wait_for(4) == [("vanishing", "opened")] * 4
    desk.close(0.1)


def test_a_channel_that_blocks_holds_up_neither_heartbeat_nor_watchdog(blocks, monkeypatch):
    keeps = Keeps()
    with serving() as server:
        monkeypatch.setenv("HEART_OF_BLOCKED", server.address)
        desk = Alerts(
            [blocks, keeps],
            heartbeat_url_env="HEART_OF_BLOCKED",
            heartbeat_seconds=0.5,
            stalled_after_seconds=4.0,
        ).open("run")
        desk.put(fault())
        assert blocks.has_begun.wait(10.0)
        for _ in range(2):
            desk.beat()
            time.sleep(1.5)
        assert server.asked == 2
        assert keeps.wait_for(2)[1:] == [("stalled", "opened")]
        desk.close(0.1)


def test_a_heartbeat_that_drips_holds_up_neither_a_channel_nor_the_watchdog(monkeypatch):
    keeps = Keeps()
    with dripping(b"H") as (port, sent):
        monkeypatch.setenv("HEART_THAT_DRIPS", f"http://127.0.0.1:{port}/x")
        desk = Alerts(keeps, heartbeat_url_env="HEART_THAT_DRIPS", stalled_after_seconds=1.0).open(
            "run"
        )
        desk.beat()
        until = time.monotonic() + 10.0
        while not sent and time.monotonic() < until:
            time.sleep(0.01)
        desk.put(fault())
        assert set(keeps.wait_for(2, 4.0)) == {("vanishing", "opened"), ("stalled", "opened")}
        start = time.monotonic()
        desk.close(10.0)
        assert time.monotonic() - start < 2.0  # the end does not wait for a heartbeat


def test_the_end_waits_once_for_all_that_block():
    blocking = [Blocks() for _ in range(5)]
    desk = Alerts(blocking).open("run")
    desk.put(fault())
    start = time.monotonic()
    desk.close(1.0)
    assert 0.9 < time.monotonic() - start < 1.9
    assert desk.troubles == ("alerts by Blocks: 0 lost, 1 not sent",) * 5
    for one in blocking:
        one.free.set()


def test_channels_that_take_their_time_send_side_by_side_at_the_end():
    class Slow(Keeps):
        def send(self, alert):
            time.sleep(0.5)
            super().send(alert)

    slow = [Slow() for _ in range(6)]
    desk = Alerts(slow).open("run")
    desk.put(fault())
    desk.close(2.5)
    assert [len(one.got) for one in slow] == [1] * 6
    assert desk.troubles == ()


def test_what_waits_for_a_channel_that_blocks_is_bounded_and_told(blocks):
    desk = Alerts([blocks], cooldown_minutes=0.001).open("run")
    desk.put(fault(0))
    assert blocks.has_begun.wait(10.0)
    for number in range(1, 301):
        desk.put(fault(number))
    desk.close(0.5)
    assert desk.troubles == ("alerts by Blocks: 200 lost, 101 not sent",)


def test_an_event_takes_less_than_50_microseconds_while_all_block(monkeypatch):
    blocking = [Blocks() for _ in range(3)]
    with dripping(b"H") as (port, _):
        monkeypatch.setenv("HEART_OF_PUTS", f"http://127.0.0.1:{port}/x")
        desk = Alerts(blocking, heartbeat_url_env="HEART_OF_PUTS").open("run")
        taken = []
        for number in range(900):
            finding = fault(number)
            start = time.perf_counter()
            desk.put(finding)
            desk.beat()
            taken.append(time.perf_counter() - start)
        desk.close(0.1)
    for one in blocking:
        one.free.set()
    assert statistics.median(taken) < 50e-6


def test_a_training_that_stands_still_is_told_and_that_it_goes_on_each_time_anew():
    class Names(Keeps):
        def send(self, alert):
            self.got.append((alert.kind, alert.state, alert.incident))

    names = Names()
    desk = Alerts(names, stalled_after_seconds=1.0).open("run")
    for turn in range(2):
        desk.beat()
        names.wait_for(2 * turn + 1)
        desk.beat()
        names.wait_for(2 * turn + 2)
    desk.close(5.0)
    assert [name[:2] for name in names.got[:4]] == [
        ("stalled", "opened"),
        ("stalled", "resolved"),
    ] * 2
    first, end, second = (names.got[i][2] for i in range(3))
    assert first == end != second


def test_a_heartbeat_comes_while_training_advances_and_not_after(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("HEART", server.address)
        desk = Alerts("log", heartbeat_url_env="HEART", heartbeat_seconds=0.5).open("run")
        for _ in range(3):
            desk.beat()
            time.sleep(1.2)
        count = server.asked
        assert 2 <= count <= 4
        time.sleep(2.5)
        assert server.asked == count
        desk.close(1.0)


def test_a_heartbeat_that_fails_is_in_the_summary_and_one_that_comes_again_is_not(monkeypatch):
    with serving(500, 200) as server:
        monkeypatch.setenv("HEART_THAT_FAILS", server.address)
        alerts = Alerts("log", heartbeat_url_env="HEART_THAT_FAILS", heartbeat_seconds=0.1)
        desk, told = alerts.open("run"), []
        until = time.monotonic() + 10.0
        while server.asked < 2 and time.monotonic() < until:
            desk.beat()
            time.sleep(0.1)
            told.append(desk.troubles)
        time.sleep(0.5)
        assert ("heartbeat: OSError",) in told
        assert desk.troubles == ()
        desk.close(1.0)


def test_a_fault_of_ours_ends_no_thread_and_no_training(monkeypatch, caplog):
    keeps = Keeps()
    real, faults = Incidents.take, [RuntimeError("ours")]

    def take(self, finding, *, now):
        if faults:
            raise faults.pop()
        return real(self, finding, now=now)

    monkeypatch.setattr(Incidents, "take", take)
    desk = Alerts(keeps).open("run")
    desk.put(fault(1))
    time.sleep(1.0)
    desk.put(fault(2))
    assert len(keeps.wait_for(1)) == 1
    desk.close(5.0)
    assert "a fault of gradguard's alerts" in caplog.text


def test_work_that_always_fails_does_not_outlive_its_end():
    def work(_is_last):
        raise SystemExit

    worker = Worker("fails", work)
    worker.close()
    worker.join(time.monotonic() + 5.0)
    assert not worker.is_alive


def test_what_is_held_back_is_told_to_each_channel_as_far_as_it_is_for_it():
    class Counts(Keeps):
        def __init__(self, min_severity):
            super().__init__()
            self.min_severity = min_severity

        def send(self, alert):
            self.got.append(alert.suppressed)

    everything, worst = Counts("info"), Counts("critical")
    desk = Alerts([everything, worst], most_per_hour=1).open("run")
    for number in range(4):
        layers = (f"layer{number}",)
        desk.put(make_finding(severity=Severity.ERROR, episode_id=number, layers=layers))
    desk.put(fault(9))
    desk.close(5.0)
    assert everything.got == [0, 3]
    assert worst.got == [0]
    assert desk.troubles == ("alerts: 3 incidents beyond `most_per_hour` were not told",)


def test_a_desk_has_one_thread_for_each_channel_and_leaves_none(monkeypatch):
    def ours():
        return [t.name for t in threading.enumerate() if t.name in expected]

    with serving() as server:
        monkeypatch.setenv("URL_OF_THREADS", server.address)
        expected = {
            "gradguard-alerts",
            "gradguard-heartbeat",
            "gradguard-ThreadsOnly",
            "gradguard-Webhook",
        }

        class ThreadsOnly(Keeps):
            pass

        channels = [ThreadsOnly(), Webhook(url_env="URL_OF_THREADS")]
        desk = Alerts(channels, heartbeat_url_env="URL_OF_THREADS").open("run")
        assert isinstance(desk, Desk)
        assert set(ours()) == expected
        desk.close(5.0)
        time.sleep(0.2)
        assert "gradguard-ThreadsOnly" not in ours()
