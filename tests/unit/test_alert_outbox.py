"""An alert is tried, tried again, and given up; a channel that fails is muted and gets a chance."""

from __future__ import annotations

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import RefusedError
from lightning_gradguard.alerts.outbox import Outbox
from lightning_gradguard.findings import Severity


class Channel:
    """Fails as often as told."""

    def __init__(self, *errors):
        self.errors, self.sent = list(errors), []

    def send(self, alert):
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.sent.append(alert)


def alert(number=0, severity=Severity.ERROR):
    return Alert(kind="vanishing", state="opened", severity=severity, message=str(number))


def box_of(channel, least=Severity.INFO, **options):
    return Outbox(channel, "Channel", least, **options)


def delivered(box, seconds, start=0.0):
    """Let time pass as the desk does; return when each try was made."""
    now, tries = start, []
    while now <= start + seconds:
        wait = box.deliver(now=now)
        tries.append(now)
        if wait is None:
            break
        now += wait
    return tries


def test_what_fails_is_tried_again_after_longer_and_longer():
    channel = Channel(OSError("a"), OSError("b"))
    box = box_of(channel)
    box.put(alert(), now=0.0)
    assert delivered(box, 60.0) == [0.0, 2.0, 6.0]
    assert len(channel.sent) == 1
    assert box.trouble is None


def test_what_is_refused_is_not_tried_again_and_the_next_tells_of_it():
    channel = Channel(RefusedError("answered 404"))
    box = box_of(channel)
    box.put(alert(1), now=0.0)
    box.put(alert(2), now=0.0)
    assert delivered(box, 60.0) == [0.0]
    assert [(a.message, a.suppressed) for a in channel.sent] == [("2", 1)]
    assert box.trouble == "alerts by Channel: 1 lost (RefusedError: answered 404)"


def test_after_four_tries_an_alert_is_given_up():
    channel = Channel(*[OSError("x")] * 4)
    box = box_of(channel)
    box.put(alert(1), now=0.0)
    box.put(alert(2), now=0.0)
    delivered(box, 300.0)
    assert [a.message for a in channel.sent] == ["2"]


def test_a_channel_that_goes_on_to_fail_is_muted_told_once_and_gets_another_chance():
    said, channel = [], Channel(*[OSError("down")] * 5)
    box = box_of(channel, warn=said.append)
    for number in range(3):
        box.put(alert(number), now=0.0)
    end = delivered(box, 600.0)[-1]
    assert channel.errors == []
    box.put(alert(3), now=end + 599.0)
    box.deliver(now=end + 599.0)
    assert channel.sent == []
    box.put(alert(4), now=end + 601.0)
    box.deliver(now=end + 601.0)
    assert [(a.message, a.suppressed) for a in channel.sent] == [("4", 4)]
    assert said == [
        "alerts by Channel failed 5 times in a row and are left out for 10 minutes: OSError: down"
    ]


def test_each_mute_is_longer_than_the_last():
    said, channel = [], Channel(*[OSError("down")] * 15)
    box, now = box_of(channel, warn=said.append), 0.0
    for _ in range(3):
        for number in range(5):
            box.put(alert(number), now=now)
        now = delivered(box, 1e9, start=now)[-1] + 1e5
    assert [line.split("for ")[1].split(" min")[0] for line in said] == ["10", "20", "40"]


def test_what_is_less_severe_is_not_for_the_channel():
    channel = Channel()
    box = box_of(channel, Severity.CRITICAL)
    box.put(alert(), now=0.0)
    box.put(alert(severity=Severity.CRITICAL), now=0.0)
    box.deliver(now=0.0)
    assert len(channel.sent) == 1


def test_what_waits_is_bounded_and_the_oldest_goes():
    channel = Channel(OSError("x"))
    box = box_of(channel)
    for number in range(150):
        box.put(alert(number), now=0.0)
    delivered(box, 60.0)
    assert [a.message for a in channel.sent] == [str(n) for n in range(50, 150)]
    assert box.lost == 50


def test_secrets_are_taken_out_of_what_is_told():
    channel = Channel(RefusedError("no answer from https://h/SECRET"))
    box = box_of(channel, scrub=lambda text: text.replace("SECRET", "***"))
    box.put(alert(), now=0.0)
    box.deliver(now=0.0)
    assert "SECRET" not in box.trouble
    assert "***" in box.trouble
