"""The benchmark of interventions measures what it says."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from benchmarks.interventions.__main__ import _options
from benchmarks.interventions.case import Hand, hands
from benchmarks.interventions.page import page
from benchmarks.interventions.running import HALVES, Job, outcomes
from benchmarks.interventions.scoring import Figures, Result, best
from benchmarks.interventions.tasks import mixture_loss
from benchmarks.interventions.training import Outcome, train
from benchmarks.interventions.treatments import TREATMENTS
from benchmarks.interventions.troubles import heavy_tailed, now_and_then, peaks, raised

CASES = [case for half in HALVES.values() for case in half]


def case_named(name):
    return next(case for case in CASES if case.name == name)


def by_hand(case, seed, factor=1.0):
    """Train with nothing but torch, and return the score."""
    torch.manual_seed(seed)
    task, model = case.task(), case.model()
    optimizer = case.optimizer(model.parameters(), lr=case.rate)
    random = torch.Generator().manual_seed(seed)
    for step in range(case.steps):
        for group in optimizer.param_groups:
            group["lr"] = case.rate * case.schedule(step) * case.bump(step) * factor
        batch = case.spoil(step, task.draw(random))
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return max(task.score(model), task.chance)


def test_there_are_enough_trainings_and_no_half_repeats_another():
    assert sum(not case.is_healthy for case in CASES) >= 12
    assert sum(case.is_healthy for case in CASES) >= 6
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({case.why for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", ["mlp-adam", "cnn-batch-norm", "peaks-of-the-rate"])
def test_a_training_without_treatment_is_that_of_plain_torch(name):
    case = replace(case_named(name), steps=40)
    assert train(case, 3, {}).score == by_hand(case, 3)


def test_a_lower_rate_by_hand_is_that_of_plain_torch():
    case = replace(case_named("mlp-adam"), steps=40)
    assert train(case, 0, {}, Hand(rate=0.1)).score == by_hand(case, 0, factor=0.1)


def test_a_cure_by_hand_takes_the_trouble_out_and_nothing_else():
    case = replace(case_named("rate-bump"), steps=40, bump=raised(100.0, 10, 20))
    sound = replace(case, bump=lambda _step: 1.0)
    assert train(case, 0, {}, Hand(is_clean=True)).score == by_hand(sound, 0)
    assert train(case, 0, {}).score == by_hand(case, 0) != by_hand(sound, 0)


def test_a_dry_guard_changes_no_score():
    case = replace(case_named("outlier-batches"), steps=60)
    dry = train(case, 1, {"policy": "auto", "dry_run": True})
    assert dry.score == train(case, 1, {}).score


def test_a_run_that_is_broken_scores_as_chance():
    case = replace(case_named("nan-batch"), steps=4, spoil=lambda _, b: (b[0] * math.nan, b[1]))
    assert train(case, 0, {}).score == 0.1


def test_the_density_of_a_mixture_is_that_of_torch():
    answer, targets = torch.randn(7, 15, dtype=torch.float64), torch.rand(7, 1).double()
    logits, means, log_deviations = answer.chunk(3, dim=1)
    mixture = MixtureSameFamily(Categorical(logits=logits), Normal(means, log_deviations.exp()))
    expected = -mixture.log_prob(targets[:, 0]).mean()
    torch.testing.assert_close(mixture_loss(answer, targets), expected)


def test_trouble_is_the_same_for_every_run_and_as_frequent_as_it_says():
    spoil = now_and_then(0.2, heavy_tailed(1.0))
    batch = torch.zeros(2, 3), torch.zeros(2)
    bad = [step for step in range(2000) if bool(spoil(step, batch)[0].any())]
    assert bad == [step for step in range(2000) if bool(spoil(step, batch)[0].any())]
    assert min(bad) >= 20
    assert len(bad) / 1980 == pytest.approx(0.2, abs=0.03)
    assert torch.equal(spoil(bad[0], batch)[0], spoil(bad[0], batch)[0])


def test_the_peaks_of_a_schedule_are_where_they_should_be():
    bump = peaks(100.0, 100, 20)
    assert [bump(step) for step in (0, 50, 80, 90, 100, 110, 120)] == pytest.approx(
        [1.0, 1.0, 1.0, 10.0, 100.0, 10.0, 1.0]
    )


def result(*, is_healthy=False, **scores):
    return Result(
        name="made up",
        is_healthy=is_healthy,
        chance=0.2,
        ceiling=0.8,
        cure="",
        scores=scores,
    )


def test_figures_are_those_worked_out_by_hand():
    failing = result(none=[0.2, 0.8, 0.1], auto=[0.75, 0.5, 0.9])
    healthy = result(is_healthy=True, none=[0.5, 0.7], auto=[0.5, 0.64])
    figures = Figures.of([failing, healthy], "auto")
    # Shares 0.55 / 0.6, 0.3 / 0.6 and, above the ceiling, 1.
    assert figures.share == pytest.approx((0.55 / 0.6 + 0.5 + 1.0) / 3)
    assert (figures.rescued, figures.failing, figures.spoilt) == (2, 2, 1)
    assert figures.change == figures.worst == pytest.approx(0.57 / 0.6 - 1.0)


def test_the_best_cure_is_the_best_on_the_mean():
    assert best({"a": [1.0, 0.0], "b": [0.6, 0.6]}) == ("b", 0.6)
    assert len({str(hand) for hand in hands()}) == len([*hands()]) == 20


def test_the_page_says_what_was_met():
    scores = {treatment: [0.5, 0.5] for treatment in TREATMENTS}
    good = replace(result(), scores=scores | {"auto": [0.8, 0.65]})
    calm = result(is_healthy=True, **scores)
    text = page({"tuning": [good, calm], "held_out": [good, calm]}, [0, 1])
    assert "| share of the ceiling, `auto` | at least 90 % | **87.5%** | missed |" in text
    assert "`auto`, seed by seed: 100.0%, 75.0%." in text
    assert "| best published clipper, `norm` | not above `auto` | **50.0%** | met |" in text
    assert "| made up (healthy) |" in text


@pytest.mark.slow
def test_what_is_kept_is_trained_again_only_where_that_is_asked_for(tmp_path):
    kept = tmp_path / "kept.jsonl"
    jobs = [Job("tuning", "outlier-batches", 0), Job("tuning", "outlier-batches", 0, "auto")]
    first = outcomes(jobs, kept, processes=1)
    assert first[jobs[1]].acts
    written = kept.read_text(encoding="utf-8")
    assert written.count("\n") == 2
    assert outcomes(jobs, kept, processes=1) == first
    assert kept.read_text(encoding="utf-8") == written
    assert outcomes(jobs, kept, processes=1, again=["auto"]) == first
    added = kept.read_text(encoding="utf-8").removeprefix(written).splitlines()
    assert [json.loads(line) for line in added] == [
        [jobs[1].key, first[jobs[1]].score, list(first[jobs[1]].acts)]
    ]


def test_of_two_outcomes_that_are_kept_the_later_one_counts(tmp_path):
    job, kept = Job("tuning", "mlp-adam", 0, "auto"), tmp_path / "kept.jsonl"
    lines = [json.dumps([job.key, 0.5]), json.dumps([job.key, 0.6, ["skipped"]])]
    kept.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert outcomes([job], kept, processes=1) == {job: Outcome(0.6, ("skipped",))}


def test_again_takes_the_names_of_treatments_only(capsys):
    assert _options(["--again", "auto", "norm"]).again == ["auto", "norm"]
    with pytest.raises(SystemExit):
        _options(["--again", "magic"])
    assert "magic" in capsys.readouterr().err
