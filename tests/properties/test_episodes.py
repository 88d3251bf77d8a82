"""Laws of episodes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.episodes import Episodes
from tests.strategies import evidence, make_finding, through_json

PATIENCE = {"a": 3, "b": 1}
COOLDOWN = 2


def fresh() -> Episodes:
    return Episodes(PATIENCE, cooldown_steps=COOLDOWN)


def told(episodes, script, *, start=0):
    return [
        finding
        for step, said in enumerate(script, start)
        for finding in episodes.update(
            [make_finding(kind, step, severity=severity) for kind, severity in said], step=step
        )
    ]


@given(evidence)
def test_beginnings_and_ends_of_a_kind_alternate(script) -> None:
    found = told(fresh(), script)
    for kind in PATIENCE:
        states = [f.state for f in found if f.kind == kind and f.state != "escalated"]
        assert states == ["opened", "resolved"] * (len(states) // 2) + ["opened"] * (
            len(states) % 2
        )


@given(evidence)
def test_ids_are_unique_and_join_a_beginning_with_its_end(script) -> None:
    found = told(fresh(), script)
    opened = [f.episode_id for f in found if f.state == "opened"]
    assert len(set(opened)) == len(opened)
    for finding in found:
        assert finding.episode_id in opened
    for episode_id in opened:
        mine = [f for f in found if f.episode_id == episode_id]
        assert len({(f.kind, f.since_step) for f in mine}) == 1
        assert [f.state for f in mine].count("resolved") <= 1
        assert mine[0].state == "opened"


@given(evidence)
def test_severity_of_an_episode_only_rises_until_it_ends(script) -> None:
    found = [f for f in told(fresh(), script) if f.state != "resolved"]
    for episode_id in {f.episode_id for f in found}:
        severities = [f.severity for f in found if f.episode_id == episode_id]
        assert severities == sorted(set(severities))


@given(evidence)
def test_there_is_never_more_than_one_open_episode_of_a_kind(script) -> None:
    episodes = fresh()
    for step in range(len(script)):
        told(episodes, script[step : step + 1], start=step)
        kinds = [episode.first.kind for episode in episodes.open]
        assert len(set(kinds)) == len(kinds)


@given(evidence)
def test_faults_open_after_evidence_in_a_row_and_end_after_silence(script) -> None:
    found = told(fresh(), script)
    for kind, patience in PATIENCE.items():
        shown = [any(k == kind for k, _ in said) for said in script]
        for finding in (f for f in found if f.kind == kind):
            if finding.state == "opened":
                assert all(shown[finding.step + 1 - patience : finding.step + 1])
            if finding.state == "resolved":
                assert not any(shown[finding.step - COOLDOWN : finding.step + 1])
        if all(shown[-patience:]) and len(shown) >= patience:
            assert any(f.kind == kind for f in found)


@given(evidence, st.integers(0, 40))
def test_stopping_anywhere_changes_nothing(script, stop) -> None:
    stop = min(stop, len(script))
    first = fresh()
    said = told(first, script[:stop])
    second = through_json(first, fresh())
    whole = fresh()
    assert repr(said + told(second, script[stop:], start=stop)) == repr(told(whole, script))
    assert repr(second.open) == repr(whole.open)
