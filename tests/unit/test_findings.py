"""Records of faults, and the sentences about them."""

from __future__ import annotations

import json
import logging

import pytest

from lightning_gradguard.findings import Finding, Severity, headline, layer_phrase
from tests.strategies import make_finding


def full() -> Finding:
    return Finding(
        kind="vanishing",
        severity=Severity.ERROR,
        step=40,
        message="too small",
        layers=("a", "b"),
        value=4.5,
        limit=3.0,
        unit="decades",
        advice="normalise.",
        state="escalated",
        since_step=21,
        epoch=2,
        optimizer_index=1,
        rank=3,
        episode_id=9,
    )


def test_severities_have_the_numbers_of_logging() -> None:
    for severity in Severity:
        assert getattr(logging, severity.name) == severity


def test_alarms_begin_at_warning() -> None:
    alarms = [severity.name for severity in Severity if make_finding(severity=severity).is_alarm]
    assert alarms == ["WARNING", "ERROR", "CRITICAL"]


def test_finding_survives_a_file() -> None:
    assert Finding.from_dict(json.loads(json.dumps(full().to_dict()))) == full()


def test_saved_finding_is_made_of_plain_types() -> None:
    saved = full().to_dict()
    assert saved["severity"] == 40
    assert type(saved["severity"]) is int
    assert saved["layers"] == ["a", "b"]


def test_unknown_fields_of_a_later_version_are_ignored_and_missing_ones_have_defaults() -> None:
    found = Finding.from_dict(
        {"kind": "spike", "severity": 20, "step": 3, "message": "m", "colour": "red"}
    )
    assert found.severity is Severity.INFO
    assert (found.layers, found.rank, found.state, found.since_step) == ((), None, "opened", -1)


@pytest.mark.parametrize(
    ("layers", "phrase"),
    [
        ([], "whole model"),
        (["a"], "a"),
        (["a", "b"], "a, b"),
        (["a", "b", "c"], "a … c (3 layers)"),
    ],
)
def test_layers_are_named_in_few_words(layers, phrase) -> None:
    assert layer_phrase(layers) == phrase


def test_more_layers_can_be_spelled_out() -> None:
    assert layer_phrase(["a", "b", "c"], most=3) == "a, b, c"


def test_headline_says_step_severity_kind_layers_and_message() -> None:
    found = make_finding(step=7, layers=("stem",), message="too small")
    assert headline(found) == "step 7  ERROR vanishing  stem: too small."


@pytest.mark.parametrize("since", [-1, 7])
def test_headline_does_not_say_since_when_it_is_now(since) -> None:
    assert "Since" not in headline(make_finding(step=7, since_step=since))


def test_headline_says_since_when_and_that_it_got_worse() -> None:
    assert headline(full()) == (
        "step 40  ERROR vanishing got worse  a, b: too small. Since step 21."
    )


def test_headline_of_an_end_says_how_long_it_lasted() -> None:
    found = make_finding(step=60, since_step=21, state="resolved", layers=("stem",))
    assert headline(found) == "step 60  vanishing ended  stem: after 39 steps."
