"""Steps that are left out: so many, and then the training ends."""

from __future__ import annotations

import pytest

from lightning_gradguard.budget import Budget
from lightning_gradguard.errors import GradGuardError, TrainingStoppedError
from tests.strategies import through_json


def end_of(budget, flags, *, index=0):
    """Return the step at which the budget is used up, or None."""
    for step, flag in enumerate(flags):
        try:
            budget.note(index, step, skipped=flag)
        except TrainingStoppedError:
            return step
    return None


def test_one_more_in_a_row_than_allowed_ends_the_training() -> None:
    assert end_of(Budget(3), [False] + [True] * 9) == 4
    assert end_of(Budget(3), [True, True, True, False] * 5) is None


def test_the_share_counts_from_the_least_number_of_steps_on() -> None:
    alternating = [step % 2 == 0 for step in range(300)]
    assert end_of(Budget(5, 0.4, min_steps=100), alternating) == 100  # the first skip from then on
    assert end_of(Budget(5, 0.6, min_steps=100), alternating) is None


def test_exactly_the_share_is_allowed() -> None:
    flags = [step < 25 and step % 2 == 0 for step in range(50)] + [False] * 2 + [True]
    assert sum(flags) == 14
    assert end_of(Budget(5, 14 / 53, min_steps=50), flags) is None
    assert end_of(Budget(5, 14 / 53 - 1e-9, min_steps=50), flags) == 52


def test_a_step_that_counts_never_ends_the_training() -> None:
    flags = [True, False] * 10 + [False] * 100
    assert end_of(Budget(5, 0.1, min_steps=30), flags) is None


def test_the_errors_say_how_many_where_and_what_to_do() -> None:
    advice = "The weights or the data are broken: look at the first of these steps."
    budget = Budget(max_consecutive_skips=1, max_skipped_fraction=0.5, min_steps=4)
    budget.note(0, 7, skipped=True)
    with pytest.raises(GradGuardError) as caught:
        budget.note(0, 8, skipped=True)
    assert str(caught.value) == (
        "2 steps in a row had to be left out, up to step 8; "
        f"`max_consecutive_skips` allows 1. {advice}"
    )
    budget = Budget(max_consecutive_skips=9, max_skipped_fraction=0.5, min_steps=4)
    for step in range(3):
        budget.note(0, step, skipped=True)
    with pytest.raises(TrainingStoppedError) as caught:
        budget.note(0, 3, skipped=True)
    assert str(caught.value) == (
        "4 of 4 steps had to be left out, up to step 3; "
        f"`max_skipped_fraction` allows 0.5. {advice}"
    )


def test_optimizers_are_counted_apart() -> None:
    budget = Budget(2)
    assert end_of(budget, [True, True], index=0) is None
    assert end_of(budget, [True, True], index=1) is None


def test_a_run_in_a_row_goes_on_after_a_checkpoint() -> None:
    budget = Budget(3)
    end_of(budget, [False, True, True], index=1)
    resumed = through_json(budget, Budget(3))
    assert resumed.state_dict() == budget.state_dict()
    assert end_of(resumed, [True, True], index=1) == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_consecutive_skips", 0, "must be a whole number of at least 1, got 0."),
        ("max_consecutive_skips", 2.5, "must be a whole number of at least 1, got 2.5."),
        ("max_skipped_fraction", 0.0, "must be a share above 0 and up to 1"),
        ("max_skipped_fraction", 1.5, "must be a share above 0 and up to 1"),
    ],
)
def test_bad_options_are_refused(option, value, message) -> None:
    with pytest.raises(ValueError, match="got") as caught:
        Budget(**{option: value})
    assert str(caught.value).startswith(f"`{option}` {message}")
