"""What is said at the end of a run, and what a finding means."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_gradguard import schema
from lightning_gradguard.findings import Severity
from lightning_gradguard.report.explain import explain
from lightning_gradguard.report.summary import Summary, summarise
from lightning_gradguard.report.text import sparkline, summary_lines, verdict
from tests.strategies import make_finding, make_frame


def summary(*findings, **fields) -> Summary:
    return summarise(findings, **{"observed_steps": 120, "steps": 240, **fields})


def opened(kind="vanishing", step=20, episode_id=1, **fields):
    return make_finding(kind, step, **{"since_step": step, "episode_id": episode_id, **fields})


def drawn(*norms, **options) -> str:
    return sparkline(make_frame(gradients=norms), **options)


# Summary.


def test_run_without_findings_is_healthy() -> None:
    assert summary().is_healthy
    assert verdict(summary()) == "healthy: nothing to report in 120 observed steps"


def test_run_that_was_never_looked_at_is_not_called_healthy() -> None:
    unseen = summary(observed_steps=0)
    assert not unseen.is_healthy
    assert "nothing was observed" in verdict(unseen)


def test_notices_are_kept_apart_and_leave_a_run_healthy() -> None:
    notice = opened("amp_overflow", severity=Severity.INFO)
    told = summary(notice)
    assert (told.faults, told.notices) == ((), (notice,))
    assert told.is_healthy


def test_a_fault_is_told_once_at_its_worst() -> None:
    worse = opened(severity=Severity.CRITICAL, state="escalated", message="worse")
    told = summary(opened(), worse, opened(state="resolved", step=90))
    assert told.faults == (worse,)
    assert told.ended == {1}
    assert not told.is_healthy


def test_end_whose_beginning_was_forgotten_is_still_told() -> None:
    assert [f.state for f in summary(opened(state="resolved")).faults] == ["resolved"]


def test_earlier_faults_come_first_and_causes_before_symptoms() -> None:
    told = summary(
        opened("my_own", 30, 1),
        opened("not_learning", 30, 2),
        opened("vanishing", 30, 3),
        opened("diverging", 10, 4),
    )
    assert [f.kind for f in told.faults] == ["diverging", "vanishing", "not_learning", "my_own"]


def test_verdict_names_every_fault_with_its_layers_and_whether_it_ended() -> None:
    told = summary(
        opened(layers=("stem",)),
        opened("exploding", 50, 2),
        opened("exploding", 90, 2, state="resolved"),
    )
    assert verdict(told) == (
        "vanishing in stem since step 20; exploding in whole model since step 50 (ended)"
    )


def test_text_tells_verdict_faults_advice_gaps_and_cost() -> None:
    told = summary(
        opened(layers=("stem",), advice="normalise."),
        opened("amp_overflow", 3, 2, severity=Severity.INFO),
        unchecked=["time steps of rnn (packed sequence)"],
    )
    assert str(told).split("\n") == [
        "gradguard: vanishing in stem since step 20",
        "  ERROR    vanishing    stem, since step 20",
        "           seen.",
        "           try: normalise.",
        "  INFO     amp_overflow whole model, since step 3",
        "           seen.",
        "  not checked: time steps of rnn (packed sequence)",
        "  cost    not measured; 240 steps",
    ]


@pytest.mark.parametrize(
    ("times", "line"),
    [
        (
            {"overhead_ms": 0.5, "step_ms": 20.0},
            "  cost    0.50 ms per step, 2.5 % of a step; 120 steps observed, 240 made",
        ),
        ({"overhead_ms": 0.5}, "  cost    0.50 ms per step; 120 steps observed, 240 made"),
        (
            {"overhead_ms": 0.5, "step_ms": 0.0},
            "  cost    0.50 ms per step; 120 steps observed, 240 made",
        ),
    ],
)
def test_cost_is_told_per_step_and_as_a_share_where_known(times, line) -> None:
    assert summary_lines(summary(**times))[-1] == line


def test_skipped_steps_noise_and_a_longer_interval_are_told_where_there_are_any() -> None:
    told = str(summary(amp_overflows=3, noise_scales={0: 12.34, 2: 0.5}, interval=20))
    assert "3 steps skipped, as float16 overflowed" in told
    assert "scale of about 12.3 batches:" in told
    assert "scale of about 0.5 batches, optimizer 2:" in told
    plain = str(summary())
    assert all(word not in plain for word in ("skipped", "noise", "one in"))


def test_the_interval_is_told_with_the_cost() -> None:
    told = str(summary(interval=20, overhead_ms=0.5, step_ms=10.0))
    assert "0.50 ms per step, 5.0 % of a step; 120 steps observed, one in 20, 240 made" in told


def test_depth_is_drawn_when_there_is_more_than_one_layer() -> None:
    lines = summary_lines(summary(last_frame=make_frame(gradients=(1e-3, 1.0))))
    assert lines[1] == "  depth   ▁█  input to loss, log gradient norm"
    assert len(summary_lines(summary(last_frame=make_frame(gradients=(1.0,))))) == 2


# Sparkline.


def test_bars_are_on_a_log_scale_from_smallest_to_largest() -> None:
    assert drawn(*(10.0**power for power in range(8))) == "▁▂▃▄▅▆▇█"


def test_bars_of_a_flat_profile_are_all_full() -> None:
    assert drawn(5.0, 5.0, 5.0) == "███"


def test_a_small_difference_is_not_blown_up() -> None:
    # Three decades at least fill the height; a factor of ten is a third of it.
    assert drawn(0.1, 1.0) == "▆█"


def test_zero_and_unknown_have_signs_of_their_own() -> None:
    assert drawn(0.0, math.nan, math.inf, 1.0) == "·xx█"
    assert drawn(0.0, math.nan) == "·x"


def test_many_layers_share_bars_and_the_smallest_wins() -> None:
    norms = np.ones(400)
    norms[5] = 1e-6
    assert drawn(*norms) == "▁" + 39 * "█"
    assert drawn(*norms, width=4) == "▁███"


# Explain.


@pytest.mark.parametrize("kind", ["vanishing", "exploding", "nonfinite", "diverging"])
def test_explanation_has_headline_meaning_and_advice(kind) -> None:
    first, meaning, last = str(explain(make_finding(kind, 7, advice="normalise."))).split("\n")
    assert first == f"step 7  ERROR {kind}  whole model: seen."
    assert len(meaning) > 100
    assert last == "Here: normalise."


def test_explanation_of_an_unknown_kind_is_what_the_finding_says() -> None:
    assert str(explain(make_finding("my_own", 7))) == "step 7  ERROR my_own  whole model: seen."


def test_every_kind_that_the_default_detectors_report_is_explained() -> None:
    kinds = {"amp_overflow", *schema.KINDS} - {"saturated"}
    assert all("\n" in str(explain(make_finding(kind))) for kind in kinds)


def test_clipping_and_a_lower_rate_are_never_said_to_help_against_vanishing() -> None:
    _, after = str(explain(make_finding("vanishing"))).split("What does not:")
    assert "clipping" in after
    assert "learning rate" in after


def test_a_watching_that_stopped_is_never_called_healthy() -> None:
    stopped = summarise([], observed_steps=7, steps=9, stopped="RuntimeError: a bug")
    assert verdict(stopped) == "watching stopped after 7 steps: RuntimeError: a bug"
    assert not stopped.is_healthy
    never = summarise([], observed_steps=0, steps=0, stopped="switched off")
    assert verdict(never) == "nothing was observed: switched off"


def test_what_was_found_before_the_watching_stopped_is_still_said() -> None:
    finding = make_finding(kind="exploding", step=3, since_step=3, episode_id=1)
    text = verdict(summarise([finding], observed_steps=7, steps=9, stopped="a bug"))
    assert text.startswith("exploding in ")
    assert text.endswith("; watching stopped after 7 steps: a bug")


def test_a_fault_that_comes_again_is_said_once_with_its_steps() -> None:
    again = [
        make_finding("nonfinite", 10 * i, since_step=10 * i, episode_id=i) for i in range(1, 5)
    ]
    ended = [replace(f, state="resolved", step=f.step + 5) for f in again[:3]]
    summary = summarise([*again, *ended], observed_steps=60, steps=60)
    lines = summary_lines(summary)
    assert verdict(summary) == "nonfinite in whole model 4 times since step 10"
    assert sum("ERROR" in line for line in lines) == 1
    assert "           again since step 20, 30, 40" in lines
