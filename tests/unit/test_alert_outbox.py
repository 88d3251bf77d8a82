"""An alert is tried, tried again, and given up; a channel that fails is muted and gets a chance."""

from __future__ import annotations

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import PartialError, RefusedError
from lightning_gradguard.alerts.outbox import Outbox
from lightning_gradguard.findings import Severity


class Clock:
    """Goes on when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Channel:
    """Fails as often as told, and takes its time."""

    def __init__(self, *errors, clock=None, takes=0.0):
        self.errors, self.sent, self.tried = list(errors), [], []
        self.clock, self.takes = clock, takes

    def send(self, alert):
        if self.clock is not None:
            self.tried.append(self.clock.now)
            self.clock.now += self.takes
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.sent.append(alert)


def alert(number=0, severity=Severity.ERROR):
    return Alert(kind="vanishing", state="opened", severity=severity, message=str(number))


def box_of(channel, least=Severity.INFO, clock=None, **options):
    return Outbox(channel, "Channel", least, clock=clock or Clock(), **options)


def delivered(box, clock):
    """Let time pass as a worker does; return when each try was made."""
    tries = []
    while True:
        tries.append(clock.now)
        wait = box.work()
        if wait is None:
            return tries
        clock.now += wait


def test_what_fails_is_tried_again_after_longer_and_longer():
    clock, channel = Clock(), Channel(OSError("a"), OSError("b"))
    box = box_of(channel, clock=clock)
    box.put(alert())
    assert delivered(box, clock) == [0.0, 2.0, 6.0]
    assert len(channel.sent) == 1
    assert box.troubles == ()


def test_a_wait_begins_when_a_try_has_failed_not_when_it_began():
    clock = Clock()
    channel = Channel(OSError("a"), OSError("b"), clock=clock, takes=100.0)
    box = box_of(channel, clock=clock)
    box.put(alert())
    delivered(box, clock)
    assert channel.tried == [0.0, 102.0, 206.0]


def test_what_is_refused_is_not_tried_again_and_the_next_tells_of_it():
    clock, channel = Clock(), Channel(RefusedError("answered 404"))
    box = box_of(channel, clock=clock)
    box.put(alert(1))
    box.put(alert(2))
    assert delivered(box, clock) == [0.0]
    assert [(a.message, a.suppressed) for a in channel.sent] == [("2", 1)]
    assert box.troubles == ("alerts by Channel: 1 lost (RefusedError: answered 404)",)


def test_what_some_people_did_not_get_is_sent_once_logged_once_and_in_the_summary():
    said, channel = [], Channel(*[PartialError("address 2 of 3: answered 550")] * 2)
    box = box_of(channel, warn=said.append)
    for number in range(3):
        box.put(alert(number))
    assert box.work() is None
    assert len(channel.sent) == 1
    assert channel.errors == []
    words = "alerts by Channel: PartialError: address 2 of 3: answered 550"
    assert said == [words]
    assert box.troubles == (words,)


def test_after_four_tries_an_alert_is_given_up():
    clock, channel = Clock(), Channel(*[OSError("x")] * 4)
    box = box_of(channel, clock=clock)
    box.put(alert(1))
    box.put(alert(2))
    delivered(box, clock)
    assert [a.message for a in channel.sent] == ["2"]


def test_a_channel_that_goes_on_to_fail_is_muted_told_once_and_gets_another_chance():
    said, clock, channel = [], Clock(), Channel(*[OSError("down")] * 5)
    box = box_of(channel, clock=clock, warn=said.append)
    for number in range(3):
        box.put(alert(number))
    end = delivered(box, clock)[-1]
    assert channel.errors == []
    clock.now = end + 599.0
    box.put(alert(3))
    box.work()
    assert channel.sent == []
    clock.now = end + 601.0
    box.put(alert(4))
    box.work()
    assert [(a.message, a.suppressed) for a in channel.sent] == [("4", 4)]
    assert said == [
        "alerts by Channel failed 5 times in a row and are left out for 10 minutes: OSError: down"
    ]


def test_what_is_critical_is_tried_at_once_by_a_channel_that_is_muted():
    clock, channel = Clock(), Channel(*[OSError("down")] * 5)
    box = box_of(channel, clock=clock)
    for number in range(3):
        box.put(alert(number))
    clock.now = delivered(box, clock)[-1] + 1.0
    box.put(alert("mild"))
    box.put(alert("death", severity=Severity.CRITICAL))
    box.work()
    assert [a.message for a in channel.sent] == ["death"]


def test_what_is_critical_is_not_lost_where_a_mute_begins():
    clock, channel = Clock(), Channel(*[OSError("down")] * 5)
    box = box_of(channel, clock=clock)
    box.put(alert("mild"))
    box.put(alert("death", severity=Severity.CRITICAL))
    times = delivered(box, clock)
    assert [a.message for a in channel.sent] == ["death"]
    assert times[-1] <= 120.0


def test_each_mute_is_longer_than_the_last():
    said, clock, channel = [], Clock(), Channel(*[OSError("down")] * 15)
    box = box_of(channel, clock=clock, warn=said.append)
    for _ in range(3):
        for number in range(5):
            box.put(alert(number))
        delivered(box, clock)
        clock.now += 1e5
    assert [line.split("for ")[1].split(" min")[0] for line in said] == ["10", "20", "40"]


def test_what_is_less_severe_is_not_for_the_channel():
    channel = Channel()
    box = box_of(channel, Severity.CRITICAL)
    box.put(alert())
    box.put(alert(severity=Severity.CRITICAL))
    box.work()
    assert len(channel.sent) == 1


def test_what_waits_is_bounded_and_the_oldest_goes():
    clock, channel = Clock(), Channel(OSError("x"))
    box = box_of(channel, clock=clock)
    for number in range(150):
        box.put(alert(number))
    delivered(box, clock)
    assert [a.message for a in channel.sent] == [str(n) for n in range(50, 150)]
    assert box.lost == 50


def test_secrets_are_taken_out_of_what_is_told():
    channel = Channel(RefusedError("no answer from https://h/SECRET"))
    box = box_of(channel, scrub=lambda text: text.replace("SECRET", "***"))
    box.put(alert())
    box.work()
    (trouble,) = box.troubles
    assert "SECRET" not in trouble
    assert "***" in trouble


def test_each_channel_tells_of_what_was_held_back_from_it_since_its_own_last_message():
    everything, worst = Channel(), Channel()
    boxes = [box_of(everything), box_of(worst, Severity.CRITICAL)]
    for held, severity in (
        ([Severity.ERROR, Severity.CRITICAL], Severity.ERROR),
        ([Severity.CRITICAL, Severity.WARNING], Severity.CRITICAL),
        ([], Severity.CRITICAL),
    ):
        for box in boxes:
            box.hold_back(held)
            box.put(alert(severity=severity))
            box.work()
    assert [a.suppressed for a in everything.sent] == [2, 2, 0]
    assert [a.suppressed for a in worst.sent] == [2, 0]


def test_what_is_put_while_the_channel_sends_is_neither_lost_nor_waited_for():
    class Slow(Channel):
        def send(self, alert):
            if not self.sent:
                for number in range(1, 151):
                    box.put(globals()["alert"](number))
                box.hold_back([Severity.ERROR])
            super().send(alert)

    channel = Slow()
    box = box_of(channel)
    box.put(alert(0))
    box.work()
    assert [a.message for a in channel.sent] == ["0", *[str(n) for n in range(51, 151)]]
    assert [a.suppressed for a in channel.sent[:3]] == [0, 50, 0]
