"""``gradguard replay`` says what an inspector with those settings says of the same frames."""

from __future__ import annotations

import json

import pytest

from lightning_gradguard import Inspector
from lightning_gradguard.cli import main
from lightning_gradguard.detectors import NonFinite
from lightning_gradguard.findings import Severity, headline
from tests.histories import StoredRun
from tests.strategies import make_finding, make_frame

SLOPE = (1e-6, 1e-6, 1e-4, 1e-2, 1.0, 1.0)


def fading(step, **fields):
    """A model whose first layers get next to nothing."""
    return make_frame(step, SLOPE, update_ratio=[1e-9, 1e-9, 1e-5, 1e-3, 1e-3, 1e-3], **fields)


FRAMES = [fading(step, loss=2.0) for step in range(60)]


def judged(frames, **settings):
    inspector = Inspector(**settings)
    return [finding for frame in frames for finding in inspector.update(frame)]


@pytest.mark.parametrize("sensitivity", ["low", "normal", "high"])
def test_it_says_what_an_inspector_says(sensitivity, stored, capsys):
    expected = judged(FRAMES, sensitivity=sensitivity)
    stored(StoredRun(FRAMES))
    assert main(["replay", "run", "--sensitivity", sensitivity, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [f["line"] for f in said["findings"]] == [headline(f) for f in expected]
    assert said["steps"] == 60


def test_sensitivity_changes_what_is_said(stored, capsys):
    onsets = {}
    for sensitivity in ("low", "normal", "high"):
        stored(StoredRun(FRAMES))
        main(["replay", "run", "--sensitivity", sensitivity, "--json"])
        found = json.loads(capsys.readouterr().out)["findings"]
        onsets[sensitivity] = [f["step"] for f in found if f["kind"] == "vanishing"]
    assert onsets["high"][0] < onsets["normal"][0] < (onsets["low"] or [60])[0]


def test_the_text_compares_then_and_now(stored, capsys):
    then = [make_finding(step=30, since_step=20, episode_id=1), make_finding("spike", step=41)]
    stored(StoredRun(FRAMES, then))
    assert main(["replay", "run"]) == 0
    (now, *_) = [f for f in judged(FRAMES) if f.kind == "vanishing"]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:5] == ["gradguard,", "with", "sensitivity", "normal:", "vanishing"]
    assert ["when", "it", "trained", "now"] in lines
    assert ["spike", "error", "at", "step", "41", "nothing"] in lines
    (row,) = [line for line in lines if line[:3] == ["vanishing", "error", "at"]]
    assert " ".join(row[1:5]) == "error at step 30"
    assert " ".join(row[5:]) == f"{now.severity.name.lower()} at step {now.step}"


def test_columns_stay_apart_however_long_they_are(stored, capsys):
    then = [
        make_finding(step=step, since_step=step, episode_id=step, severity=Severity.CRITICAL)
        for step in (12_345_678, 12_345_680)
    ]
    stored(StoredRun(FRAMES, then, thinned={"steps": 5636}))
    assert main(["replay", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (head,) = [line for line in lines if "when it trained" in line]
    (row,) = [line for line in lines if line.startswith("  vanishing ") and "2 times" in line]
    assert row[head.index("now") - 2 : head.index("now")] == "  "
    assert row[head.index("now") :].startswith("error at step")
    assert lines[-1] == "  60 stored steps were judged; 5,636 old ones were thinned"


def test_ignored_kinds_are_not_said(stored, capsys):
    stored(StoredRun(FRAMES))
    kinds = {finding.kind for finding in judged(FRAMES)}
    options = [part for kind in kinds for part in ("--ignore", kind)]
    assert main(["replay", "run", *options, "--fail-on", "info"]) == 0
    assert "healthy: nothing to report in 60 observed steps" in capsys.readouterr().out


def test_a_kind_that_does_not_exist_is_refused(stored, capsys):
    stored(StoredRun(FRAMES))
    assert main(["replay", "run", "--ignore", "vanish"]) == 2
    assert "`ignore` must name a kind of finding, got 'vanish'." in capsys.readouterr().err


def test_fail_on_counts_what_is_said_now(stored):
    stored(StoredRun(FRAMES))
    assert main(["replay", "run", "--fail-on", "warning"]) == 1
    stored(StoredRun(FRAMES, [make_finding()]))
    assert main(["replay", "run", "--fail-on", "warning", "--ignore", "vanishing"]) == 0


def test_each_optimizer_is_judged_apart(stored, capsys):
    healthy = [make_frame(s, [1.0] * 6, loss=2.0 * 0.98**s, optimizer_index=1) for s in range(60)]
    stored(StoredRun([*FRAMES, *healthy]))
    main(["replay", "run", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == 120
    assert {finding["optimizer_index"] for finding in said["findings"]} == {0}


def test_a_detector_that_fails_is_named_and_the_others_go_on(stored, capsys, monkeypatch):
    def fail(_self, _frame):
        return 1 / 0

    monkeypatch.setattr(NonFinite, "update", fail)
    stored(StoredRun(FRAMES))
    assert main(["replay", "run"]) == 0
    lines = capsys.readouterr().out
    assert "not judged: NonFinite was switched off at step 0: ZeroDivisionError" in lines
    assert "vanishing" in lines


def test_an_empty_run_is_judged_to_nothing(stored, capsys):
    stored(StoredRun())
    assert main(["replay", "run"]) == 0
    assert "nothing was observed" in capsys.readouterr().out
