"""A learning rate that is cut in trouble and heals, and a training that is stopped."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lightning_gradguard.episodes import Episode
from lightning_gradguard.findings import Severity
from lightning_gradguard.remedies import LearningRate, ReduceLearningRate, Stop, StopTraining
from lightning_gradguard.remedies.testing import moment_of, trouble
from tests.strategies import make_finding


def factors(remedy, steps, *, faulty=(), start=0):
    """Return the factor in force at each step; a fault is seen one step before it is known."""
    found = []
    for step in range(start, start + steps):
        episodes = [trouble("diverging", step=step - 1)] if step in faulty else []
        decisions = remedy.decide(moment_of([1.0], step=step, episodes=episodes))
        found.append(decisions[0].factor if decisions else 1.0)
    return found


def test_nothing_happens_while_all_is_well() -> None:
    assert ReduceLearningRate().decide(moment_of([1.0])) == ()


def test_a_fault_halves_the_rate_and_says_why() -> None:
    (cut,) = ReduceLearningRate().decide(
        moment_of([1.0], step=9, episodes=[trouble("exploding", step=8, since_step=3)])
    )
    assert cut == LearningRate(0.5, "exploding since step 3: trouble")


def test_the_rate_stays_until_it_heals() -> None:
    found = factors(ReduceLearningRate(recovery_steps=30), 25, faulty={5})
    assert found == [1.0] * 5 + [0.5] * 20


def test_other_kinds_are_not_its_affair() -> None:
    remedy = ReduceLearningRate("exploding")
    assert factors(remedy, 10, faulty={5}) == [1.0] * 10


def test_old_evidence_cuts_only_once() -> None:
    remedy, old = ReduceLearningRate(cooldown_steps=2), [trouble("diverging", step=4)]
    seen = [remedy.decide(moment_of([1.0], step=s, episodes=old))[0].factor for s in range(5, 20)]
    assert seen == [0.5] * 15


def test_cuts_keep_their_distance_and_end_at_the_floor() -> None:
    remedy = ReduceLearningRate(factor=0.1, floor=0.05, cooldown_steps=4)
    found = factors(remedy, 20, faulty=range(1, 20))
    assert found == pytest.approx([1.0] + [0.1] * 4 + [0.05] * 15)


def test_a_rate_that_never_worked_waits_longer_than_one_that_did() -> None:
    def cut_at(step):
        remedy = ReduceLearningRate(recovery_steps=10, early_recovery_steps=40)
        return factors(remedy, 60, faulty={step}, start=step - 1)

    # Steps are counted from 0, and the training up to a step has gone well since -1.
    assert cut_at(99) == pytest.approx(
        [1.0] + [0.5] * 39 + [0.5 * 2 ** (i / 40) for i in range(20)], rel=0.02
    )
    late = cut_at(102)
    assert late[:11] == [1.0] + [0.5] * 10
    assert late[21:] == [1.0] * 39


def test_cuts_of_one_spell_heal_like_the_first() -> None:
    remedy = ReduceLearningRate(cooldown_steps=5, recovery_steps=10, early_recovery_steps=1000)
    found = factors(remedy, 150, faulty={120, 126})
    assert found[127] == 0.25
    assert found[149] > 0.25


def test_it_doubles_in_as_many_steps_as_it_waited() -> None:
    found = factors(ReduceLearningRate(factor=0.25, recovery_steps=8), 40, faulty={2})
    assert found[2:10] == [0.25] * 8  # seen at step 1, cut at step 2, quiet until step 9
    assert found[17] == pytest.approx(0.5)
    assert found[25] == pytest.approx(1.0)
    ratios = [late / early for early, late in pairwise(found[10:25])]
    assert ratios == pytest.approx([2.0 ** (1 / 8)] * 14)
    assert found[26:] == [1.0] * 14


def test_when_it_has_healed_it_says_so_once() -> None:
    remedy = ReduceLearningRate(recovery_steps=4)
    remedy.decide(moment_of([1.0], step=0, episodes=[trouble("diverging", step=0)]))
    said = [remedy.decide(moment_of([1.0], step=step)) for step in range(1, 20)]
    reasons = [decision.why for decisions in said for decision in decisions]
    assert reasons.count("quiet for long: the rate has healed") == 1
    assert said[-1] == ()


def test_what_goes_on_without_a_cut_delays_the_healing() -> None:
    remedy = ReduceLearningRate(floor=0.5, recovery_steps=8)
    found = factors(remedy, 60, faulty=range(3, 40))
    assert set(found[3:46]) == {0.5}  # last seen at step 38
    assert found[46] > 0.5


def healed_at(faults_at, *, steps=100):
    """Return the step at which the rate first grows, cut at step 2; None for never."""
    remedy, past = ReduceLearningRate(recovery_steps=8), 1.0
    for step in range(2, steps):
        faults = [trouble("diverging", step=1)] if step == 2 else faults_at(step)
        factor = remedy.decide(moment_of([1.0], step=step, episodes=faults))[0].factor
        if factor > past:
            return step
        past = factor
    return None


def test_the_rate_does_not_heal_while_any_other_fault_goes_on() -> None:
    """As where everything has become NaN: it diverges no more, but nothing is well."""

    def nonfinite(until):
        return lambda step: [trouble("nonfinite", step=step - 1)] if 4 < step <= until else []

    assert healed_at(nonfinite(until=0)) == 2 + 8
    assert healed_at(nonfinite(until=40)) == 39 + 8  # last seen at step 39
    assert healed_at(nonfinite(until=1000)) is None


def test_the_rate_does_not_heal_before_a_fault_has_ended_that_was_last_seen_long_ago() -> None:
    assert healed_at(lambda step: [trouble("dead", step=4)] if 4 < step <= 30 else []) == 31


def test_a_notice_delays_no_healing() -> None:
    def spike(step):
        notice = make_finding("spike", step, severity=Severity.INFO)
        return [Episode(notice, notice, 1, is_open=True, worst=notice)]

    assert healed_at(spike) == 2 + 8


def test_where_the_fault_came_back_the_rate_heals_to_half_of_that() -> None:
    remedy = ReduceLearningRate(cooldown_steps=1, recovery_steps=8)
    found = factors(remedy, 120, faulty={1, 30})
    assert found[29] == 1.0
    assert found[30] == 0.5
    assert found[-1] == 0.5  # half of 1, for ever
    partly = factors(ReduceLearningRate(cooldown_steps=1, recovery_steps=8), 120, faulty={1, 13})
    at_return = partly[12]
    assert 0.5 < at_return < 1.0
    assert partly[-1] == pytest.approx(at_return / 2)


def test_cuts_in_one_trouble_are_no_relapse() -> None:
    remedy = ReduceLearningRate(cooldown_steps=2, recovery_steps=8)
    assert factors(remedy, 80, faulty={1, 2, 3, 4, 5, 6})[-1] == 1.0


def test_the_ceiling_is_not_below_the_floor() -> None:
    remedy = ReduceLearningRate(factor=0.1, floor=0.4, cooldown_steps=1, recovery_steps=4)
    assert factors(remedy, 60, faulty={1, 20})[-1] == pytest.approx(0.4)


def test_another_look_at_a_step_changes_nothing() -> None:
    remedy = ReduceLearningRate(recovery_steps=2)
    faults = [trouble("diverging", step=0)]
    again = moment_of([1.0], step=1, episodes=faults, is_first_look=False)
    assert remedy.decide(again) == ()
    remedy.decide(moment_of([1.0], step=1, episodes=faults))
    saved = remedy.state_dict()
    assert remedy.decide(again) == [LearningRate(0.5)]
    assert remedy.decide(moment_of([1.0], step=9, is_first_look=False)) == [LearningRate(0.5)]
    assert remedy.state_dict() == saved


def test_training_is_stopped_while_the_fault_goes_on() -> None:
    remedy, faults = StopTraining(["diverging", "nonfinite"]), [trouble("nonfinite", step=2)]
    assert remedy.decide(moment_of([1.0])) == ()
    expected = [Stop("nonfinite since step 2: trouble")]
    assert remedy.decide(moment_of([1.0], step=3, episodes=faults)) == expected
    assert remedy.decide(moment_of([1.0], step=9, episodes=faults)) == expected
    error = StopTraining("nonfinite", as_error=True)
    assert error.decide(moment_of([1.0], step=3, episodes=faults))[0].as_error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReduceLearningRate(factor=1.0), "`factor` must be between 0 and 1, got 1.0."),
        (lambda: ReduceLearningRate(floor=0.0), "`floor` must be a share above 0 and up to 1, "),
        (lambda: ReduceLearningRate(cooldown_steps=0), "`cooldown_steps` must be a number above 0"),
        (lambda: ReduceLearningRate(recovery_steps=-1), "`recovery_steps` must be a number above"),
        (lambda: ReduceLearningRate("explosion"), "`kinds` must be 'nonfinite' or 'exploding'"),
        (lambda: ReduceLearningRate(()), "`kinds` must name at least one kind of finding, got ()."),
        (lambda: ReduceLearningRate(floor=None), "`floor` must be a share above 0"),
        (lambda: StopTraining("nan"), "got 'nan'."),
    ],
)
def test_bad_options_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match="got") as caught:
        make()
    assert message in str(caught.value)
