"""When to go back, how far, and how often."""

from __future__ import annotations

import pytest

from lightning_gradguard.remedies import GoBack, LearningRate, ReduceLearningRate, Rollback
from lightning_gradguard.remedies.testing import moment_of, trouble
from tests.strategies import make_frame, through_json


def ask(remedy, step, *faults, bad=0, fine=0, **more):
    """Ask about a step after some that were not finite, and some that were."""
    frames = [make_frame(bad=[0])] * bad + [make_frame()] * fine
    return list(remedy.decide(moment_of([1.0], step=step, episodes=faults, frames=frames, **more)))


def goes_back(*args, **more):
    return [d.before_step for d in ask(*args, **more) if isinstance(d, GoBack)]


def test_it_goes_back_to_before_the_first_evidence_and_cuts_the_rate() -> None:
    fault = trouble("diverging", step=60, since_step=55)
    assert ask(Rollback(), 61, fault) == [
        GoBack(45, "diverging since step 55: trouble"),
        LearningRate(0.5, "diverging since step 55: trouble"),
    ]


def test_of_several_faults_the_one_that_began_first_counts() -> None:
    faults = [trouble("diverging", step=60), trouble("exploding", step=60, since_step=31)]
    assert goes_back(Rollback(["diverging", "exploding"]), 61, *faults) == [21]


def test_it_does_not_go_back_before_the_start() -> None:
    assert goes_back(Rollback(), 4, trouble("diverging", step=3)) == [0]


def test_the_margin_is_what_was_asked_for() -> None:
    assert goes_back(Rollback(margin_steps=0), 61, trouble("diverging", step=60)) == [60]


def test_evidence_that_is_known_leads_back_only_once() -> None:
    remedy, fault = Rollback(), trouble("diverging", step=60)
    assert goes_back(remedy, 61, fault) == [50]
    assert [goes_back(remedy, step, fault) for step in range(62, 200)] == [[]] * 138


def test_after_so_many_rollbacks_only_the_rate_is_cut() -> None:
    remedy = Rollback(max_rollbacks=2)
    found = [ask(remedy, step, trouble("diverging", step=step - 1)) for step in (50, 100, 150)]
    assert [[type(d) for d in decisions] for decisions in found] == [
        [GoBack, LearningRate],
        [GoBack, LearningRate],
        [LearningRate],
    ]
    assert found[2][0].factor == 0.125


def test_no_rollback_without_a_new_cut() -> None:
    """While the rate cools down, the state that it went back to has had no chance yet."""
    remedy = Rollback(rate=ReduceLearningRate(cooldown_steps=20))
    faulty = {step: trouble("diverging", step=step - 1) for step in range(50, 75)}
    went = [step for step, fault in faulty.items() if goes_back(remedy, step, fault)]
    assert went == [50, 70]


def test_one_broken_batch_is_no_broken_model() -> None:
    remedy = Rollback("nonfinite")
    assert goes_back(remedy, 10, trouble("nonfinite", step=9), bad=1) == []
    assert goes_back(remedy, 11, trouble("nonfinite", step=10), bad=1) == []
    assert goes_back(remedy, 12, trouble("nonfinite", step=11), bad=1) == [1]


def test_broken_steps_must_come_in_a_row() -> None:
    remedy = Rollback("nonfinite")
    assert goes_back(remedy, 10, trouble("nonfinite", step=9), bad=2) == []
    assert goes_back(remedy, 12, trouble("nonfinite", step=11), bad=2, fine=1) == []
    assert goes_back(remedy, 14, trouble("nonfinite", step=13), bad=2) == []


def test_patience_holds_for_other_faults_not() -> None:
    faults = [trouble("nonfinite", step=60), trouble("diverging", step=60)]
    remedy = Rollback(["nonfinite", "diverging"])
    assert ask(remedy, 61, *faults, bad=1)[0].why == "diverging since step 60: trouble"


def test_another_look_at_a_step_goes_nowhere() -> None:
    remedy = Rollback()
    assert goes_back(remedy, 61, trouble("diverging", step=60), is_first_look=False) == []
    assert goes_back(remedy, 61, trouble("diverging", step=60)) == [50]


def test_a_run_of_broken_steps_survives_a_checkpoint() -> None:
    remedy = Rollback("nonfinite")
    ask(remedy, 10, bad=2)
    resumed = through_json(remedy, Rollback("nonfinite"))
    assert goes_back(resumed, 11, trouble("nonfinite", step=10), bad=1) == [0]
    again = through_json(resumed, Rollback("nonfinite"))
    assert goes_back(again, 11, trouble("nonfinite", step=10), bad=1) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rollbacks": 0}, "`max_rollbacks` must be a whole number of at least 1, got 0."),
        ({"every_n_steps": 0.5}, "`every_n_steps` must be a whole number of at least 1, got 0.5."),
        ({"generations": 1.5}, "`generations` must be a whole number of at least 1, got 1.5."),
        ({"patience_steps": 0}, "`patience_steps` must be a whole number of at least 1, got 0."),
        ({"margin_steps": -1}, "`margin_steps` must be a whole number of at least 0, got -1."),
        ({"max_bytes": 0}, "`max_bytes` must be a whole number of at least 1, got 0."),
        ({"kinds": "late"}, "'not_learning', got 'late'."),
        ({"rate": 3}, "`rate` must be a ReduceLearningRate for diverging, got 3."),
        ({"rate": ReduceLearningRate("exploding")}, "`rate` must be a ReduceLearningRate for div"),
    ],
)
def test_bad_options_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match="got") as caught:
        Rollback(**options)
    assert message in str(caught.value)
