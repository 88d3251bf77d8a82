"""``gradguard summary`` says what the run's own summary would say, from the history alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lightning_gradguard.audit import Action
from lightning_gradguard.cli import main
from lightning_gradguard.findings import Severity
from lightning_gradguard.report.summary import summarise
from tests.histories import StoredRun
from tests.strategies import make_finding, make_frame

FRAMES = [make_frame(step, (1e-6, 1e-3, 1.0), loss=2.0 - 0.1 * step) for step in range(10)]
FINDINGS = (
    make_finding(
        step=4, since_step=2, layers=("l0",), message="too small", advice="a norm", episode_id=1
    ),
    make_finding("spike", step=5, since_step=5, severity=Severity.INFO, episode_id=2),
    make_finding("spike", step=9, since_step=5, state="resolved", episode_id=2),
)


def lines_of(run, stored, capsys, *options):
    stored(run)
    assert main(["summary", "run", *options]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_text_is_that_of_the_runs_own_summary(stored, capsys):
    lines = lines_of(StoredRun(FRAMES, FINDINGS), stored, capsys)
    expected = summarise(FINDINGS, observed_steps=10, steps=10, last_frame=FRAMES[-1])
    assert lines[: len(str(expected).splitlines())] == str(expected).splitlines()


def test_the_run_its_steps_its_loss_and_its_file_are_named(stored, capsys):
    run = StoredRun(FRAMES, FINDINGS)
    lines = lines_of(run, stored, capsys)
    assert lines[-4:] == [
        "  run     version_0: finished",
        "  steps   10 recorded, 0 to 9; 3 layers",
        "  loss    2 at first, 1.1 at last",
        f"  file    {run.path}",
    ]


@pytest.mark.parametrize(
    ("finished", "words"),
    [
        (None, "not finished: it still trains, or it was killed"),
        ("exception", "ended by an exception"),
        ("interrupted", "interrupted"),
    ],
)
def test_it_says_how_the_run_ended(finished, words, stored, capsys):
    lines = lines_of(StoredRun(FRAMES, finished=finished), stored, capsys)
    assert f"  run     version_0: {words}" in lines


def test_each_optimizer_has_its_own_line(stored, capsys):
    second = [make_frame(step, (1.0, 1.0), optimizer_index=1) for step in range(4)]
    lines = lines_of(StoredRun([*FRAMES, *second]), stored, capsys)
    assert "  steps   10 recorded, 0 to 9, optimizer 0; 3 layers" in lines
    assert "  steps   4 recorded, 0 to 3, optimizer 1; 2 layers" in lines


def test_a_run_without_a_step_says_so(stored, capsys):
    lines = lines_of(StoredRun(), stored, capsys)
    assert lines[0] == "gradguard: nothing was observed: no optimizer step with gradients was seen"


def test_what_a_guard_did_is_summed_up(stored, capsys):
    clipped = [make_frame(step, guard_clip_coefficient=0.5) for step in range(4)]
    free = [make_frame(step, guard_clip_coefficient=1.0) for step in range(4, 8)]
    actions = [Action(what="skip", step=3, why="loss is NaN")]
    lines = lines_of(StoredRun([*clipped, *free], actions=actions), stored, capsys)
    assert "  guard   clipped 4 of 8 steps (50 %), to 0.5 of their norm on the mean" in lines
    assert "  guard   left out step 3" in lines


def test_json_holds_what_the_text_says(stored, capsys):
    said = json.loads("\n".join(lines_of(StoredRun(FRAMES, FINDINGS), stored, capsys, "--json")))
    assert said["schema"] == "gradguard.cli/1"
    assert said["command"] == "summary"
    assert said["verdict"] == "vanishing in l0 since step 2"
    assert (said["healthy"], said["severity_name"]) == (False, "error")
    assert [(f["kind"], f["ended"]) for f in said["findings"]] == [
        ("vanishing", False),
        ("spike", True),
    ]
    assert said["loss"] == {"first": 2.0, "last": pytest.approx(1.1)}
    assert said["run"]["optimizers"] == [
        {"index": 0, "layers": 3, "steps": 10, "first_step": 0, "last_step": 9}
    ]


def test_a_healthy_run_is_called_healthy(stored, capsys):
    said = json.loads("\n".join(lines_of(StoredRun(FRAMES), stored, capsys, "--json")))
    assert (said["healthy"], said["severity_name"], said["findings"]) == (True, None, [])


def test_the_cost_is_the_last_that_the_run_knew_of(stored, capsys):
    class Timed(StoredRun):
        scalars = ("overhead_ms",)

        def scalar(self, name, optimizer_index=0):
            return np.array([0.5, 0.25, np.nan])

    lines = lines_of(Timed(FRAMES), stored, capsys)
    assert "  cost    0.25 ms per step; 10 steps observed, 10 made" in lines


def test_steps_that_were_thinned_are_told_and_counted_as_observed(stored, capsys):
    stored(StoredRun([make_frame(step) for step in (0, 5, 9)], thinned={"steps": 7}))
    assert main(["summary", "run"]) == 0
    said = capsys.readouterr().out
    assert "7 old ones were thinned" in said
    assert "10 observed steps" in said
