"""Stopping: quietly after the step, or with an error; a remedy that fails stops only itself."""

from __future__ import annotations

import logging
import threading

import pytest
import pytorch_lightning as pl
import torch

from lightning_gradguard.errors import TrainingStoppedError
from lightning_gradguard.remedies import (
    Clamp,
    ClipNorm,
    GoBack,
    LearningRate,
    Only,
    Scale,
    ScaleUnits,
    Skip,
    Stop,
)
from tests.e2e.guard_cases import (
    Adversaries,
    At,
    From,
    assert_same,
    classifier,
    done,
    guard,
    normed,
    train,
    with_factor,
)
from tests.e2e.modes import MODES

STOP, FAIL = Stop("asked"), Stop("asked", as_error=True)
MAKE = classifier(normed, torch.optim.AdamW)


def stopping(step=3, decision=STOP, **options):
    return guard(remedies=[At({step}, decision)], **options)


def test_training_ends_after_the_step():
    guarded = stopping()
    run = train(MAKE, guarded, max_epochs=3)
    assert run.trainer.global_step == 4
    assert_same(run, train(MAKE, max_steps=4))
    (action,) = guarded.actions
    assert (action.what, action.step, action.why) == ("stop", 3, "asked")
    assert "stops the training at step 3" in str(guarded.summary())


@pytest.mark.parametrize(
    ("decision", "line"),
    [
        (STOP, "step 3  stops the training: asked"),
        (GoBack(0, "asked"), "step 3  can no longer help: no state from before step 0 (before"),
    ],
    ids=["stop", "give up"],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_changes_the_run_is_in_the_log_whatever_the_sinks(decision, line, dry_run, caplog):
    caplog.set_level(logging.WARNING, logger="lightning_gradguard")
    train(MAKE, stopping(decision=decision, dry_run=dry_run))
    found = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [message.startswith(f"gradguard: {line}") for message in found] == [True] * (not dry_run)


@pytest.mark.parametrize(
    ("limits", "steps"),
    [({"min_steps": 13}, 13), ({"min_epochs": 2}, 16), ({"min_steps": 2, "min_epochs": 0}, 4)],
)
def test_it_stops_as_soon_as_the_least_number_of_steps_is_reached(limits, steps):
    run = train(MAKE, stopping(), max_epochs=4, **limits)
    assert run.trainer.global_step == steps


def test_under_accumulation_it_ends_after_the_window():
    run = train(MAKE, stopping(1), max_epochs=3, accumulate_grad_batches=3)
    assert_same(run, train(MAKE, max_steps=2, max_epochs=3, accumulate_grad_batches=3))


@pytest.mark.parametrize("use_pl_optimizer", [True, False])
def test_adversaries_stop_together(use_pl_optimizer):
    def make():
        return Adversaries(use_pl_optimizer=use_pl_optimizer)

    run = train(make, stopping(), max_epochs=3)
    assert_same(run, train(make, limit_train_batches=4))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("step", [0, 3])
def test_as_an_error_it_says_why(scaled, step):
    guarded = stopping(step, FAIL)
    with pytest.raises(TrainingStoppedError, match=r"^asked$"):
        train(MAKE, guarded, max_epochs=3, scaled=scaled)
    assert done(guarded, "raise") == [step]
    assert "ends the training" in str(guarded.summary())


@pytest.mark.parametrize("response", ["stop", "raise"])
@pytest.mark.parametrize("mode", ["fp32", "line search", "scaler, fused Adam"])
def test_nan_ends_the_training_if_it_is_told_to(response, mode):
    make = with_factor(MODES[mode].model, range(3, 99))
    guarded = guard(on_nonfinite=response)
    options = {"max_epochs": 9, "scaled": MODES[mode].uses_scaler, **MODES[mode].options}
    if response == "raise":
        with pytest.raises(TrainingStoppedError, match="nonfinite since step 3"):
            train(make, guarded, **options)
    else:
        run = train(make, guarded, **options)
        assert run.trainer.global_step <= 6
    (action,) = guarded.actions
    assert action.why.startswith("nonfinite since step 3")


# Remedies that fail.


class Fails(ClipNorm):
    """Break from the third step on."""

    def decide(self, moment):
        if moment.step >= 3:
            return self.fail()
        return super().decide(moment)

    def fail(self):
        msg = "out of ideas"
        raise RuntimeError(msg)


class Nonsense(Fails):
    acts = frozenset({"clip", "learning rate"})

    def fail(self):
        return [LearningRate(0.5), "less"]


class NoList(Fails):
    def fail(self):
        return 0.5


class Generates(Fails):
    """A generator that breaks half-way: what it said before must not count."""

    def fail(self):
        yield LearningRate(0.1, "half")
        msg = "out of ideas"
        raise RuntimeError(msg)


BROKEN = {
    Fails: "RuntimeError: out of ideas",
    Nonsense: r"TypeError: A remedy must return Scale, .*got 'less'",
    NoList: "TypeError: .*float.* not iterable",
    Generates: "RuntimeError: out of ideas",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_remedy_that_fails_is_reported_once_and_the_others_go_on(kind, caplog):
    caplog.set_level(logging.CRITICAL, logger="lightning_gradguard")
    other = From([5], LearningRate(0.5, "asked"))
    guarded = guard(remedies=[kind(1e-3), other], on_error="warn")
    run = train(MAKE, guarded)
    until_then = At(range(3), *())
    until_then.decide = lambda moment: ClipNorm(1e-3).decide(moment) if moment.step < 3 else ()
    assert_same(run, train(MAKE, guard(remedies=[until_then, other])))
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(critical) == 1
    assert f"{kind.__name__} failed at step 3" in critical[0].getMessage()
    assert f"{kind.__name__} failed at step 3" in str(guarded.summary())
    assert done(guarded, "reduce_lr") == [5]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_remedy_that_fails_ends_the_run_if_it_is_told_to(kind):
    error, message = BROKEN[kind].split(": ", 1)
    expected = {"RuntimeError": RuntimeError, "TypeError": TypeError}[error]
    with pytest.raises(expected, match=message):
        train(MAKE, guard(remedies=[kind(1e-3)]))


class Forgetful(ClipNorm):
    """Cannot say what it has learned."""

    def state_dict(self):
        msg = "lost"
        raise RuntimeError(msg)


@pytest.mark.parametrize("saves", [False, True])
def test_a_remedy_that_cannot_say_its_state_is_reported_once_and_the_run_ends_well(
    saves, caplog, tmp_path
):
    caplog.set_level(logging.CRITICAL, logger="lightning_gradguard")
    guarded = guard(remedies=[Forgetful(1e-3), From([5], STOP)], on_error="warn")
    checkpoints = [pl.callbacks.ModelCheckpoint(tmp_path)] if saves else []
    run = train(MAKE, guarded, *checkpoints, enable_checkpointing=saves)
    (record,) = caplog.records
    assert "Forgetful failed to say what it has learned: RuntimeError: lost" in record.getMessage()
    assert "no longer helped by Forgetful" in str(guarded.summary())
    assert done(guarded, "stop") == [5]
    assert not run.trainer.optimizers[0]._optimizer_step_post_hooks


def test_nothing_stays_on_the_optimizer_when_a_fault_ends_the_run_at_its_end():
    caught = []

    class Keep(pl.Callback):
        def on_train_end(self, trainer, module):
            caught.append(trainer.optimizers[0])

    with pytest.raises(RuntimeError, match="lost"):
        train(MAKE, guard(remedies=[Forgetful(1e-3)]), Keep())
    assert not caught[0]._optimizer_step_pre_hooks
    assert not caught[0]._optimizer_step_post_hooks


def test_a_remedy_that_cannot_be_copied_is_named():
    class Locked(ClipNorm):
        def __init__(self):
            super().__init__(1.0)
            self.lock = threading.Lock()

    with pytest.raises(
        TypeError, match=r"copy of its own of `Only\(Locked\)`.*pickle.*__deepcopy__"
    ):
        train(MAKE, guard(remedies=[Only("*", Locked())], on_error="warn"))


ODD = {
    "a rate of nan": lambda: LearningRate(float("nan"), "odd"),
    "a negative rate": lambda: LearningRate(-1.0, "odd"),
    "no rate": lambda: LearningRate(None, "odd"),
    "a rate that grows": lambda: LearningRate(2.0, "odd"),
    "no such group": lambda: LearningRate(0.5, "odd", [7]),
    "a skip that is no tensor": lambda: Skip(when=True, why="odd"),
    "two skips in one": lambda: Skip(torch.tensor([True, False]), "odd"),
    "a scale that is no tensor": lambda: Scale(0.5, "odd"),
    "too few scales": lambda: Scale(torch.tensor([0.5, 0.5]), "odd"),
    "no such units": lambda: ScaleUnits({99: torch.tensor([0.5])}, "odd"),
    "a negative limit": lambda: Clamp(-1.0, "odd"),
    "no such member": lambda: Clamp(1.0, "odd", [99]),
    "no step": lambda: GoBack(None, "odd"),
    "a rate without words": lambda: LearningRate(0.5, 3),
    "a group that is no list": lambda: LearningRate(0.5, "odd", groups=0),
    "a skip that is a number": lambda: Skip(torch.tensor(1.0), "odd"),
    "a skip that is nan": lambda: Skip(torch.tensor(torch.nan), "odd"),
    "a skip without a reason": lambda: Skip(torch.tensor(data=True), None),
    "a value that is no tensor": lambda: Skip(torch.tensor(data=True), "odd", value=1.0),
    "three values": lambda: Skip(torch.tensor(data=True), "odd", value=torch.ones(3)),
    "two limits": lambda: Skip(torch.tensor(data=True), "odd", limit=torch.ones(2)),
    "a complex scale": lambda: Scale(torch.tensor(0.5 + 1j), "odd"),
    "a scale without a name": lambda: Scale(torch.tensor(0.5), None),
    "a list of units": lambda: ScaleUnits([torch.tensor([0.5])], "odd"),
    "units that are a number": lambda: ScaleUnits({0: 0.5}, "odd"),
    "units as a column": lambda: ScaleUnits({0: torch.full((8, 1), 0.5)}, "odd"),
    "too many units": lambda: ScaleUnits({0: torch.full((99,), 0.5)}, "odd"),
    "a flag for a position": lambda: ScaleUnits({True: torch.tensor([0.5])}, "odd"),
    "norms of nothing": lambda: ScaleUnits({0: torch.full((8,), 0.5)}, "odd", norms={}),
    "a member that is no list": lambda: Clamp(1.0, "odd", members=0),
    "a limit without a name": lambda: Clamp(1.0, None),
    "a way back without words": lambda: GoBack(1, None),
    "a stop without words": lambda: Stop(3),
    "an error by word": lambda: Stop("odd", as_error="no"),
}


class Odd:
    """Ask for something impossible in the fourth step."""

    def __init__(self, make):
        self.make = make

    def decide(self, moment):
        return [self.make()] if moment.step == 3 else ()


@pytest.mark.parametrize("name", ODD)
def test_a_decision_that_cannot_be_carried_out_is_its_remedys_affair(name, caplog):
    guarded = guard(remedies=[Odd(ODD[name]), ClipNorm(0.05)], on_error="warn")
    run = train(MAKE, guarded)
    assert_same(run, train(MAKE, guard(clip=0.05)))
    assert any("Odd failed at step 3" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("use_pl_optimizer", [True, False])
def test_a_fault_of_the_guard_itself_ends_the_guarding_and_not_the_run(use_pl_optimizer, caplog):
    def make():
        return Adversaries(use_pl_optimizer=use_pl_optimizer)

    guarded = guard(remedies=[From([3], LearningRate(0.5, "asked"))], on_error="warn")

    class Breaks(pl.Callback):
        """Break something inside of it."""

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if batch_idx == 5:
                for ward in guarded._guard._wards.values():
                    ward.decide = None

    run = train(make, Breaks(), guarded)
    until_then = guard(remedies=[At({3, 4}, LearningRate(0.5, "asked"))])
    assert_same(run, train(make, until_then))
    assert "the run is unprotected" in caplog.records[-1].getMessage()
    assert guarded.summary().acts[-1].startswith("unprotected from step 5 on: TypeError: ")


def test_a_factor_of_nan_breaks_no_gradient():
    """It is on the device, where nobody sees it in time."""
    guarded = guard(remedies=[At({3}, Scale(torch.tensor(torch.nan), "odd"))])
    assert torch.isfinite(train(MAKE, guarded).weights).all()
