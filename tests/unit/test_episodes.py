"""Faults begin, get worse and end; nothing flaps."""

from __future__ import annotations

import pytest

from lightning_gradguard.episodes import Episodes
from lightning_gradguard.findings import Finding, Severity
from tests.strategies import make_finding, through_json


def played(episodes: Episodes, evidence: str, *, start: int = 0) -> list[Finding]:
    """Play one step per letter, ``x`` with evidence, and return what was said."""
    said: list[Finding] = []
    for step, letter in enumerate(evidence, start):
        found = [make_finding("spike", step)] if letter == "x" else []
        said += episodes.update(found, step=step)
    return said


def told(episodes: Episodes, evidence: str) -> list[tuple[int, str]]:
    """Return steps and states of what was said."""
    return [(finding.step, finding.state) for finding in played(episodes, evidence)]


def test_fault_opens_at_once_without_patience_and_ends_after_the_cooldown() -> None:
    assert told(Episodes(cooldown_steps=2), ".xxx....") == [(1, "opened"), (6, "resolved")]


def test_patience_needs_evidence_in_a_row() -> None:
    episodes = Episodes({"spike": 3}, cooldown_steps=2)
    assert told(episodes, "xx.xx.xxx") == [(8, "opened")]


def test_since_is_the_first_step_of_the_row_that_opened_it() -> None:
    episodes = Episodes({"spike": 3})
    for step in (0, 4, 5):
        episodes.update([make_finding("spike", step)], step=step)
        if step == 0:
            episodes.update([], step=1)
    (opened,) = episodes.update([make_finding("spike", 6)], step=6)
    assert (opened.since_step, opened.step) == (4, 6)


def test_silence_shorter_than_the_cooldown_is_no_end() -> None:
    episodes = Episodes(cooldown_steps=2)
    assert told(episodes, "x..x..x...") == [(0, "opened"), (9, "resolved")]


def test_end_carries_the_latest_evidence_and_the_id_of_its_beginning() -> None:
    episodes = Episodes(cooldown_steps=0)
    (opened,) = episodes.update([make_finding(step=1, layers=("a",))], step=1)
    episodes.update([make_finding(step=2, layers=("a", "b"))], step=2)
    (ended,) = episodes.update([], step=3)
    assert ended.state == "resolved"
    assert ended.layers == ("a", "b")
    assert (ended.since_step, ended.step) == (1, 3)
    assert ended.episode_id == opened.episode_id > 0


def test_next_fault_of_a_kind_gets_an_id_of_its_own() -> None:
    episodes = Episodes(cooldown_steps=0)
    found = []
    for step in range(6):
        evidence = [make_finding("a", step), make_finding("b", step)] if step % 2 == 0 else []
        found += episodes.update(evidence, step=step)
    opened = [f.episode_id for f in found if f.state == "opened"]
    assert len(opened) == len(set(opened)) == 6


def test_worse_evidence_escalates_once_and_lesser_evidence_does_not() -> None:
    episodes = Episodes()
    states = []
    for step, severity in enumerate(
        [Severity.WARNING, Severity.ERROR, Severity.WARNING, Severity.ERROR, Severity.CRITICAL]
    ):
        found = episodes.update([make_finding(step=step, severity=severity)], step=step)
        states += [(f.step, f.state, f.severity.name) for f in found]
    assert states == [
        (0, "opened", "WARNING"),
        (1, "escalated", "ERROR"),
        (4, "escalated", "CRITICAL"),
    ]
    assert episodes.open[0].worst.step == 4
    assert episodes.open[0].count == 5


def test_several_findings_of_a_kind_become_the_worst() -> None:
    found = Episodes().update(
        [
            make_finding(severity=Severity.INFO, message="mild"),
            make_finding(severity=Severity.CRITICAL, message="bad"),
        ],
        step=0,
    )
    assert [f.message for f in found] == ["bad"]


def test_silence_means_nothing_once_everything_is_broken() -> None:
    episodes = Episodes(cooldown_steps=2)
    told(episodes, "x")
    for step in range(1, 50):
        assert episodes.update([], step=step, can_end=False) == ()
    assert len(episodes.open) == 1
    assert [f.state for f in episodes.update([], step=50)] == ["resolved"]


def test_optimizers_have_faults_of_their_own() -> None:
    episodes = Episodes(cooldown_steps=0)
    for index in (0, 1):
        (opened,) = episodes.update([make_finding()], step=0, optimizer_index=index)
        assert opened.optimizer_index == index
    (ended,) = episodes.update([], step=1, optimizer_index=0)
    assert ended.optimizer_index == 0
    assert [e.first.optimizer_index for e in episodes.open] == [1]


def test_pending_fault_is_not_open() -> None:
    episodes = Episodes({"spike": 2})
    told(episodes, "x")
    assert episodes.open == ()


@pytest.mark.parametrize("stop", range(12))
def test_stopping_anywhere_changes_nothing(stop) -> None:
    script = "xx.xxx...xxx"
    settings = {"patience_steps": {"spike": 2}, "cooldown_steps": 1}
    first = Episodes(**settings)
    said = played(first, script[:stop])
    second = through_json(first, Episodes(**settings))
    assert repr(second.open) == repr(first.open)
    said += played(second, script[stop:], start=stop)
    assert repr(said) == repr(played(Episodes(**settings), script))
