"""One alert per incident: told when it begins, gets worse and ends for good, and not more often."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.incidents import Incidents, group_of
from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Severity
from tests.strategies import make_finding

LAYERS = ("encoder.0.fc", "encoder.1.fc")


def fault(step=10, state="opened", severity=Severity.ERROR, episode_id=1, **more):
    fields = {"since_step": 8, "layers": LAYERS, **more}
    return make_finding(
        "vanishing", step, state=state, severity=severity, episode_id=episode_id, **fields
    )


class Talk:
    """Incidents, and what they said so far."""

    def __init__(self, **options):
        self.incidents, self.said = Incidents(**options), []

    def take(self, finding, now=0.0):
        self.said += self.incidents.take(finding, now=now)
        return self

    def tick(self, step, now=0.0):
        self.said += self.incidents.tick(step=step, now=now)
        return self

    def close(self, now=0.0):
        self.said += self.incidents.close(now=now)
        return self

    @property
    def states(self):
        return [alert.state for alert in self.said]

    @property
    def held(self):
        """How many messages were held back since this was asked last."""
        return len(self.incidents.take_held())


def test_an_incident_is_told_when_it_begins_gets_worse_and_ends():
    talk = Talk().take(fault()).take(fault(12, "escalated", Severity.CRITICAL))
    talk.take(fault(80, "resolved", Severity.CRITICAL)).tick(179)
    assert talk.states == ["opened", "escalated"]
    talk.tick(180)
    assert talk.states == ["opened", "escalated", "resolved"]
    assert len({alert.incident for alert in talk.said}) == 1
    assert talk.said[2].severity is Severity.CRITICAL


def test_an_alert_says_all_that_is_known():
    talk = Talk()
    talk.incidents.note(Action(what="skip", step=9, why="loss is NaN"))
    talk.take(fault(value=5.0, limit=4.0, unit="decades", advice="normalise.", epoch=2))
    (alert,) = talk.said
    assert (alert.kind, alert.group, alert.layers) == ("vanishing", "encoder.*", LAYERS)
    assert (alert.step, alert.since_step, alert.epoch) == (10, 8, 2)
    assert (alert.value, alert.limit, alert.unit) == (5.0, 4.0, "decades")
    assert alert.advice == "normalise."
    assert "left out this step: loss is NaN" in alert.action


def test_what_was_done_before_the_fault_began_is_not_told_with_it():
    talk = Talk()
    talk.incidents.note(Action(what="skip", step=7))
    talk.incidents.note(Action(what="skip", step=9, optimizer_index=1))
    assert talk.take(fault()).said[0].action == ""


def test_a_fault_that_flaps_is_told_once():
    talk = Talk()
    for turn in range(10):
        talk.take(fault(100 * turn, episode_id=turn + 1), now=turn)
        talk.take(fault(100 * turn + 60, "resolved", episode_id=turn + 1), now=turn)
        talk.tick(100 * turn + 99, now=turn)
    assert talk.states == ["opened"]
    talk.tick(5000, now=10)
    assert talk.states == ["opened", "resolved"]
    assert talk.held == 18


def test_within_the_cooldown_a_new_incident_waits_and_is_told_if_it_goes_on():
    talk = Talk(cooldown_seconds=100.0, settle_steps=0)
    talk.take(fault()).take(fault(60, "resolved")).tick(60, now=1.0)
    talk.take(fault(70, episode_id=2, since_step=70), now=2.0).tick(70, now=100.9)
    assert talk.states == ["opened", "resolved"]
    talk.tick(70, now=101.0)
    assert talk.states == ["opened", "resolved", "opened"]
    assert talk.held == 1
    assert talk.said[-1].incident != talk.said[0].incident


def test_the_cooldown_counts_from_the_last_message_also_if_that_told_an_end():
    talk = Talk(cooldown_seconds=100.0, settle_steps=0)
    talk.take(fault()).take(fault(60, "resolved"), now=99.0).tick(60, now=99.0)
    talk.take(fault(70, episode_id=2), now=150.0).tick(70, now=198.0)
    assert talk.states == ["opened", "resolved"]
    assert talk.tick(70, now=199.0).states == ["opened", "resolved", "opened"]


def test_what_the_cooldown_holds_back_is_told_when_the_training_ends():
    talk = Talk(cooldown_seconds=1e9, settle_steps=0)
    talk.take(fault()).take(fault(60, "resolved")).tick(60)
    talk.take(fault(70, episode_id=2)).tick(80)
    assert talk.states == ["opened", "resolved"]
    assert talk.close().close().states == ["opened", "resolved", "opened"]
    assert talk.incidents.untold == 0


def test_what_the_limit_still_holds_back_when_the_training_ends_is_counted():
    talk = Talk(most_per_hour=2)
    for number in range(5):
        talk.take(fault(layers=(f"layer{number}",), episode_id=number))
    assert len(talk.close().said) == 2
    assert talk.incidents.untold == 3


def test_what_is_held_back_is_counted_again_when_it_returns():
    talk = Talk(cooldown_seconds=1e9, settle_steps=0)
    talk.take(fault()).take(fault(60, "resolved")).tick(60)
    for turn in range(2, 5):
        talk.take(fault(100 * turn, episode_id=turn)).tick(100 * turn)
        talk.take(fault(100 * turn + 50, "resolved", episode_id=turn))
    assert talk.states == ["opened", "resolved"]
    assert talk.held == 3


def test_no_two_incidents_of_a_run_have_one_name_also_within_a_cooldown():
    talk = Talk(cooldown_seconds=10.0, settle_steps=0)
    for turn in range(1, 30):
        step = 100 * turn
        talk.take(fault(step, episode_id=turn, since_step=step), now=3.0 * turn)
        talk.take(fault(step + 50, "resolved", episode_id=turn, since_step=step), now=3.0 * turn)
        talk.tick(step + 50, now=3.0 * turn)
    opened = [alert.incident for alert in talk.said if alert.state == "opened"]
    assert len(opened) > 3
    assert len(set(opened)) == len(opened)


def test_after_a_resume_an_end_has_the_name_of_its_beginning_and_what_is_new_another():
    before = Talk().take(fault(10, since_step=8, episode_id=1))
    after = Talk().take(fault(300, "resolved", since_step=8, episode_id=1, layers=("head",)))
    after.tick(400).take(fault(500, since_step=500, episode_id=2))
    assert after.states == ["resolved", "opened"]
    assert after.said[0].incident == before.said[0].incident
    assert after.said[1].incident != before.said[0].incident


def test_what_does_not_come_from_a_finding_must_be_severe_enough_too():
    def said(severity):
        incidents = Incidents(min_severity=Severity.ERROR)
        alert = Alert(kind="interrupted", state="opened", severity=severity, message="m")
        return len(list(incidents.admit(alert, now=0.0)))

    assert [said(severity) for severity in Severity] == [0, 0, 1, 1]


def test_an_escalation_passes_the_cooldown():
    talk = Talk(cooldown_seconds=1e9).take(fault())
    assert talk.take(fault(11, "escalated", Severity.CRITICAL)).states == ["opened", "escalated"]


def test_there_is_a_limit_per_hour_and_the_next_message_tells_what_was_held_back():
    talk = Talk(most_per_hour=2)
    for number in range(5):
        talk.take(fault(layers=(f"layer{number}",), episode_id=number), now=60.0 * number)
    assert len(talk.said) == 2
    talk.tick(20, now=3600.0)
    assert (len(talk.said), talk.held) == (3, 3)
    talk.tick(20, now=3660.0)
    assert (len(talk.said), talk.held) == (4, 0)


def test_what_is_less_severe_is_not_told():
    talk = Talk(min_severity=Severity.CRITICAL).take(fault()).take(fault(90, "resolved")).tick(900)
    assert talk.states == []


def test_two_parts_of_a_model_are_two_incidents():
    talk = Talk().take(fault()).take(fault(layers=("head",), episode_id=2))
    assert [alert.group for alert in talk.said] == ["encoder.*", "head"]


def test_the_end_of_a_training_tells_the_ends_that_were_held_back():
    talk = Talk().take(fault()).take(fault(60, "resolved")).close()
    assert talk.states == ["opened", "resolved"]


def test_an_end_is_told_also_of_what_began_before_a_resume():
    talk = Talk().take(fault(300, "resolved", episode_id=7)).tick(400)
    assert talk.states == ["resolved"]


@pytest.mark.parametrize(
    ("layers", "group"),
    [
        ((), ""),
        (("a.b",), "a.b"),
        (("a.b", "a.c.d"), "a.*"),
        (("a.b", "c.b"), ""),
        (("a", "b"), ""),
    ],
)
def test_a_group_is_the_innermost_module_that_holds_all(layers, group):
    assert group_of(layers) == group


events = st.lists(
    st.tuples(
        st.sampled_from(["opened", "escalated", "resolved", "tick"]),
        st.sampled_from(list(Severity)),
        st.sampled_from([LAYERS, ("head",), ()]),
        st.floats(0.0, 5000.0),
    ),
    max_size=60,
)


@given(events)
def test_no_order_of_events_tells_an_end_without_a_beginning_or_too_much(events):
    talk, step, now, sent = Talk(cooldown_seconds=600.0, most_per_hour=5), 0, 0.0, []
    episodes = {}
    for state, severity, layers, seconds in events:
        step, now, before = step + 40, now + seconds, len(talk.said)
        if state == "opened" or layers not in episodes:
            episodes[layers] = {"episode_id": step, "since_step": step}
        if state == "tick":
            talk.tick(step, now)
        else:
            found = fault(step, "opened", severity, layers=layers, **episodes[layers])
            talk.take(replace(found, state=state), now)
            if state == "resolved":
                del episodes[layers]
        counted = [a for a in talk.said[before:] if a.state != "resolved"]
        sent += [now for alert in counted if alert.severity < Severity.CRITICAL]
    for start in sent:
        assert sum(start <= moment < start + 3600.0 for moment in sent) <= 5
    for incident in {alert.incident for alert in talk.said}:
        mine = [alert for alert in talk.said if alert.incident == incident]
        assert [alert.state for alert in mine].count("resolved") <= 1
        worse = [a.severity for a in mine if a.state != "resolved"]
        assert worse == sorted(set(worse))


def test_what_is_critical_and_what_has_ended_is_told_beyond_the_limit():
    talk = Talk(most_per_hour=1, settle_steps=0).take(fault()).take(fault(60, "resolved"))
    talk.tick(60)
    talk.take(fault(70, severity=Severity.CRITICAL, layers=("head",), episode_id=2))
    assert talk.states == ["opened", "resolved", "opened"]


def test_an_end_is_told_however_mild_the_fault_was_at_last():
    talk = Talk(min_severity=Severity.ERROR).take(fault())
    talk.take(fault(60, "resolved", Severity.WARNING)).tick(160)
    assert talk.states == ["opened", "resolved"]
