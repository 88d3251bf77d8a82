"""Those who are told: one that raises is switched off alone, and named."""

from __future__ import annotations

import pytest

from lightning_gradguard.audience import Audience
from lightning_gradguard.events import Observation
from tests.strategies import make_finding, make_frame


class Keep:
    def __init__(self) -> None:
        self.events = []

    def emit(self, event) -> None:
        self.events.append(event)


class Broken(Keep):
    def emit(self, event) -> None:
        super().emit(event)
        msg = "disk full"
        raise OSError(msg)


EVENTS = [Observation(frame=make_frame()), make_finding()]


def test_everybody_is_told_everything_in_order() -> None:
    sinks = [Keep(), Keep()]
    audience = Audience(sinks)
    for event in EVENTS:
        audience.tell(event)
    assert [sink.events for sink in sinks] == [EVENTS, EVENTS]
    assert audience.muted == []


def test_the_users_function_is_called_with_findings_only() -> None:
    called = []
    audience = Audience(on_finding=called.append)
    for event in EVENTS:
        audience.tell(event)
    assert called == EVENTS[1:]


def test_a_sink_that_raises_is_switched_off_alone_and_named_once() -> None:
    sinks = [Broken(), Keep()]
    audience = Audience(sinks)
    audience.step = 7
    with pytest.warns(UserWarning, match="Broken was switched off at step 7: OSError: disk full"):
        audience.tell(EVENTS[0])
    audience.tell(EVENTS[1])
    assert [len(sink.events) for sink in sinks] == [1, 2]
    assert audience.muted == ["Broken was switched off at step 7: OSError: disk full"]
    assert len(sinks) == 2  # the list is the user's


def test_a_function_that_raises_is_switched_off_and_sinks_go_on() -> None:
    calls, sink = [], Keep()

    def function(finding):
        calls.append(finding)
        raise ValueError

    audience = Audience([sink], function)
    with pytest.warns(UserWarning, match="on_finding was switched off"):
        audience.tell(EVENTS[1])
    audience.tell(EVENTS[1])
    assert (len(calls), len(sink.events)) == (1, 2)
