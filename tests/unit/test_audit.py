"""Records of what was done, and what all of it comes to."""

from __future__ import annotations

import json
import math

import pytest

from lightning_gradguard import audit as module_under_test
from lightning_gradguard.audit import Action, Audit, action_line, is_clipped
from tests.strategies import through_json


def audit_of(*actions, coefficients=(), dry_run=False):
    audit = Audit(dry_run=dry_run)
    for coefficient in coefficients:
        audit.note_step(coefficient)
    for what, step in actions:
        audit.note(Action(what=what, step=step, dry_run=dry_run))
    return audit


@pytest.mark.parametrize(
    ("coefficient", "expected"),
    [
        (1.0, False),
        (0.99, True),
        (1.0 - 2e-5, True),
        (1.0 - 5e-6, False),
        (0.0, True),
        (math.nan, False),
        (2.0, False),
    ],
)
def test_clipping_is_what_exceeds_the_precision_of_a_norm(coefficient, expected) -> None:
    assert is_clipped(coefficient) is expected


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (Action(what="skip", step=3), "step 3  left out this step"),
        (Action(what="skip", step=3, dry_run=True), "step 3  would have left out this step"),
        (
            Action(what="reduce_lr", step=9, why="diverging", numbers={"lr_factor": 0.5}),
            "step 9  cut the learning rate: diverging (lr factor 0.5)",
        ),
        (
            Action(what="clip", step=1, why="agc", numbers={"norm": 123.456, "coefficient": 1e-9}),
            "step 1  clipped: agc (norm 123, coefficient 1e-09)",
        ),
        (Action(what="sing", step=2), "step 2  sing"),
        (Action(what="sing", step=2, dry_run=True), "step 2  would have done: sing"),
    ],
)
def test_an_action_is_said_in_one_line(action, line) -> None:
    assert action_line(action) == line


def test_a_quiet_run_has_nothing_to_say() -> None:
    audit = audit_of(coefficients=[1.0, math.nan, 1.0])
    assert list(audit.lines()) == []
    assert (audit.steps, audit.actions, dict(audit.counts)) == (3, (), {})


def test_clipping_is_counted_with_its_mean_and_its_cost() -> None:
    audit = audit_of(coefficients=[0.5, 0.25, 1.0, math.nan, 1.5, 1.0, 1.0, 1.0])
    mean, lost = (0.5 + 0.25) / 2, 1.0 - (0.5 + 0.25 + 6 * 1.0) / 8
    assert list(audit.lines()) == [
        f"clipped 2 of 8 steps (25 %), to {mean:.2g} of their norm on the mean",
        (
            f"clipping cost about {100 * lost:.0f} % of the effective learning rate; less where "
            "the optimizer divides by the gradient's own size, as Adam does"
        ),
    ]


def test_small_shares_have_two_digits_and_no_cost() -> None:
    (line,) = audit_of(coefficients=[0.5] * 3 + [1.0] * 997).lines()
    assert line == "clipped 3 of 1000 steps (0.3 %), to 0.5 of their norm on the mean"


def test_a_cost_of_half_a_percent_is_told() -> None:
    assert len(list(audit_of(coefficients=[0.5] + [1.0] * 99).lines())) == 2
    assert len(list(audit_of(coefficients=[0.52] + [1.0] * 99).lines())) == 1


def test_shadow_mode_speaks_of_what_would_have_been() -> None:
    actions = [("skip", 4120), ("skip", 4121), ("rollback", 7), ("give_up", 8)]
    audit = audit_of(*actions, coefficients=[0.5] * 3 + [1.0] * 7, dry_run=True)
    assert list(audit.lines()) == [
        "would have clipped 3 of 10 steps (30 %), to 0.5 of their norm on the mean",
        (
            "clipping would cost about 15 % of the effective learning rate; less where the "
            "optimizer divides by the gradient's own size, as Adam does"
        ),
        "would have left out steps 4120 and 4121",
        "would have gone back at step 7",
        "can no longer help at step 8",
    ]


def test_of_many_steps_the_first_are_named() -> None:
    audit = audit_of(*[("skip", step) for step in range(10, 22)], ("reduce_lr", 30))
    assert list(audit.lines()) == [
        "left out 12 steps, the first of them 10, 11, 12, 13 and 14",
        "cut the learning rate at step 30",
    ]
    assert list(audit_of(("skip", 1), ("skip", 2), ("skip", 5)).lines()) == [
        "left out steps 1, 2 and 5"
    ]


def test_a_record_of_clipping_is_not_counted_twice() -> None:
    audit = audit_of(("clip", 1), ("skip", 1), coefficients=[0.5])
    assert audit.counts == {"clip": 1, "skip": 1}
    assert [line.split()[0] for line in audit.lines()] == ["clipped", "clipping", "left"]
    assert [action.what for action in audit.actions] == ["clip", "skip"]


def test_old_records_are_dropped_but_still_counted(monkeypatch) -> None:
    monkeypatch.setattr(module_under_test, "_MOST_ACTIONS", 3)
    audit = audit_of(*[("skip", step) for step in range(5)])
    assert [action.step for action in audit.actions] == [2, 3, 4]
    assert audit.counts["skip"] == 5
    resumed = through_json(audit, Audit())
    resumed.note(Action(what="skip", step=5))
    assert [action.step for action in resumed.actions] == [3, 4, 5]


def test_an_action_is_plain_json_whatever_its_numbers() -> None:
    numbers = {"norm": math.inf, "limit": math.nan, "coefficient": 0.5}
    action = Action(what="clip", step=4, why="agc", numbers=numbers, epoch=2, optimizer_index=1)
    text = json.dumps(action.to_dict(), allow_nan=False)
    back = Action.from_dict({**json.loads(text), "from a newer version": 1})
    assert back.numbers["coefficient"] == 0.5
    assert math.isnan(back.numbers["norm"])
    assert math.isnan(back.numbers["limit"])
    assert (back.what, back.step, back.why, back.epoch, back.optimizer_index) == (
        "clip",
        4,
        "agc",
        2,
        1,
    )


def test_what_is_loaded_goes_on_with_the_same_words() -> None:
    audit = audit_of(("skip", 3), ("stop", 9), coefficients=[0.5, 1.0, 0.125])
    resumed = through_json(audit, Audit())
    assert list(resumed.lines()) == list(audit.lines()) != []
    assert resumed.actions == audit.actions
