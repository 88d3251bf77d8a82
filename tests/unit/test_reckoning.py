"""What was decided on the device becomes records on the host, a step later."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from lightning_gradguard.assemble import StepContext
from lightning_gradguard.audit import Audit
from lightning_gradguard.budget import Budget
from lightning_gradguard.errors import TrainingStoppedError
from lightning_gradguard.reckoning import Reckoning
from lightning_gradguard.remedies import Clamp, LearningRate, Scale, ScaleUnits, Skip
from lightning_gradguard.remedies.council import Verdict
from lightning_gradguard.ward import Decided

CLIPS = [Scale(torch.tensor(0.5), "norm"), Clamp(1.0, "value"), Scale(torch.tensor(1.0), "norm")]


def skip(why="loud", value=None, limit=None, *, when=True):
    value, limit = (None if x is None else torch.tensor(x) for x in (value, limit))
    return Skip(torch.tensor(when), why, value, limit)


def decided(step=0, *, clips=(), skips=(), rates=(), coefficient=None, index=0, **fields):
    known = None if coefficient is None else torch.tensor(coefficient, dtype=torch.float64)
    return Decided(
        **{
            "verdict": Verdict(clips=clips, skips=skips, rates=rates),
            "context": StepContext(step=step, epoch=2, optimizer_index=index),
            "step": step,
            "norm": torch.tensor(8.0, dtype=torch.float64),
            "coefficient": known,
            "lr_factors": [1.0],
            "cut": 1.0,
            "is_first_look": True,
            **fields,
        }
    )


class Desk:
    """A reckoning, and what it told."""

    def __init__(self, *, dry_run=False, **budget):
        self.audit, self.told = Audit(dry_run=dry_run), []
        self.reckoning = Reckoning(self.audit, Budget(**budget), self.told.append)

    def settle(self, *steps):
        for step in steps:
            self.reckoning.send(step)
            self.reckoning.collect()
        return [(action.what, action.step, action.why) for action in self.told]


def test_a_clipped_step_is_recorded_with_who_clipped_and_how_much() -> None:
    desk = Desk()
    units = ScaleUnits({}, "agc")
    desk.settle(decided(5, clips=[*CLIPS, units], coefficient=0.5, index=1))
    (action,) = desk.told
    assert (action.what, action.step, action.why) == ("clip", 5, "norm, value, agc")
    assert action.numbers == {"norm": 8.0, "coefficient": 0.5}
    assert (action.optimizer_index, action.epoch, action.dry_run) == (1, 2, False)
    assert desk.audit.counts["clip"] == 1
    assert desk.audit.actions == (action,)


@pytest.mark.parametrize("coefficient", [None, 1.0, math.nan])
def test_a_step_that_was_not_clipped_is_only_counted(coefficient) -> None:
    desk = Desk()
    assert desk.settle(decided(clips=CLIPS, coefficient=coefficient)) == []
    assert (desk.audit.steps, desk.audit.counts["clip"]) == (1, 0)


def test_nothing_is_recorded_before_the_numbers_are_collected() -> None:
    desk = Desk()
    desk.reckoning.send(decided(clips=CLIPS, coefficient=0.5))
    assert desk.told == []
    desk.reckoning.collect()
    assert len(desk.told) == 1
    desk.reckoning.collect()
    assert len(desk.told) == 1


def test_a_step_left_out_is_recorded_once_with_the_first_reason_that_held() -> None:
    desk = Desk()
    skips = [skip("no", when=False), skip("yes", 9.0, 3.0), skip("yes, too")]
    assert desk.settle(decided(4, skips=skips)) == [("skip", 4, "yes")]
    assert desk.told[0].numbers == {"value": 9.0, "limit": 3.0}


def test_without_a_value_the_norm_is_what_was_judged() -> None:
    desk = Desk()
    desk.settle(decided(skips=[skip()]))
    assert desk.told[0].numbers == {"value": 8.0}


def test_a_clip_and_a_skip_of_one_step_are_two_records() -> None:
    found = Desk().settle(decided(1, clips=CLIPS, coefficient=0.5, skips=[skip()]))
    assert [what for what, *_ in found] == ["clip", "skip"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_too_many_steps_left_out_end_the_training_unless_nothing_is_really_done(dry_run) -> None:
    desk = Desk(max_consecutive_skips=2, dry_run=dry_run)
    desk.settle(*[decided(step, skips=[skip()]) for step in range(2)])
    if dry_run:
        desk.settle(*[decided(step, skips=[skip()]) for step in range(2, 9)])
        assert all(action.dry_run for action in desk.told)
        return
    with pytest.raises(TrainingStoppedError, match="3 steps in a row"):
        desk.settle(decided(2, skips=[skip()]))
    assert desk.audit.counts["skip"] == 3


def test_a_step_that_counts_ends_a_run_of_others() -> None:
    desk = Desk(max_consecutive_skips=2)
    flags = [True, True, False] * 5
    desk.settle(*[decided(i, skips=[skip(when=flag)]) for i, flag in enumerate(flags)])
    assert desk.audit.counts["skip"] == 10


def test_at_the_end_nothing_is_judged_any_more() -> None:
    desk = Desk(max_consecutive_skips=1)
    for step in range(4):
        desk.reckoning.send(decided(step, skips=[skip()]))
    desk.reckoning.collect(judge=False)
    assert desk.audit.counts["skip"] == 4


def test_later_looks_of_a_line_search_count_only_if_they_leave_the_step_out() -> None:
    desk = Desk(max_consecutive_skips=2)
    later = {"is_first_look": False, "coefficient": 0.5, "clips": CLIPS}
    desk.settle(decided(0), decided(0, **later), decided(0, **later, skips=[skip()]))
    assert desk.audit.steps == 1
    assert [action.what for action in desk.told] == ["skip"]
    assert desk.reckoning.budget.state_dict() == {"0": [1, 1, 2]}


@pytest.mark.parametrize(
    ("before", "now", "why", "expected"),
    [
        (1.0, 0.5, "diverging", ("reduce_lr", "diverging")),
        (0.5, 0.25, "", ("reduce_lr", "")),
        (0.9, 1.0, "healed", ("restore_lr", "healed")),
        (0.8, 0.9, "", None),
        (0.5, 0.5, "", None),
        (0.5, 0.5, "same", None),
    ],
)
def test_rates_are_recorded_when_they_are_cut_and_when_they_have_healed(
    before, now, why, expected
) -> None:
    desk = Desk()
    rates = [LearningRate(now, why), LearningRate(1.0, why)]
    desk.reckoning.note_rates(decided(3, rates=rates, cut=now), before)
    assert [(a.what, a.why) for a in desk.told] == ([] if expected is None else [expected])
    assert [a.numbers for a in desk.told] == [{"lr_factor": now}] * len(desk.told)


def test_two_reasons_for_a_cut_are_both_told() -> None:
    desk = Desk()
    rates = [LearningRate(0.5, "a"), LearningRate(0.25, "b"), LearningRate(0.25, "a")]
    desk.reckoning.note_rates(decided(rates=rates, cut=0.25), 1.0)
    assert desk.told[0].why == "a; b"


def test_a_limit_of_one_step_is_counted_and_not_recorded() -> None:
    desk = Desk()
    held = decided(rates=[LearningRate(0.5, is_cut=False)], lr_factors=[1.0, 0.5])
    desk.reckoning.note_rates(held, 1.0)
    assert desk.settle(held, decided(1)) == []
    [line] = desk.audit.lines()
    assert line.startswith("held back 1 of 2 steps, to 0.5 of their learning rate on the mean")


def test_a_run_that_is_held_back_for_long_is_told_once(caplog) -> None:
    desk = Desk()
    for step in range(450):
        desk.settle(decided(step, lr_factors=[0.03] if step != 220 else [1.0]))
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2  # once in each spell
    assert "held back the last 200 steps, the last one to 0.03 of its learning rate" in told[0]


def test_everything_but_clipping_is_logged(caplog) -> None:
    desk = Desk()
    with caplog.at_level(logging.INFO):
        desk.settle(decided(1, clips=CLIPS, coefficient=0.5, skips=[skip("loud", 9.0)]))
        desk.reckoning.note("rollback", decided(6), "back", before_step=3)
    assert [record.message for record in caplog.records] == [
        "gradguard: step 1  left out this step: loud (value 9)",
        "gradguard: step 6  went back: back (before step 3)",
    ]


def test_numbers_are_those_of_the_step_even_if_its_tensors_are_written_to_later() -> None:
    desk, norm = Desk(), torch.tensor(8.0, dtype=torch.float64)
    desk.reckoning.send(decided(clips=CLIPS, coefficient=0.5, norm=norm))
    norm.fill_(1.0)
    desk.reckoning.collect()
    assert desk.told[0].numbers["norm"] == 8.0
