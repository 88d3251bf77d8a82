"""The examples of acting do what they say, and so do the guarded reference runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from examples import demo, guarded, own_remedy
from examples.reference.guarded import GUARDED
from lightning_gradguard import GradientGuard
from lightning_gradguard.remedies.testing import moment_of

ROOT = Path(__file__).resolve().parents[2]
SOON_OVER = ("nan-batch+off", "nan-batch+skip", "relu-rnn+off", "sigmoid10+robust")


@pytest.mark.parametrize(("guards", "is_whole"), [(False, False), (True, True)])
def test_a_batch_of_nan_breaks_the_example_unless_it_is_left_out(guards, is_whole):
    guard = GradientGuard(on_nonfinite="skip", sinks=[]) if guards else None
    state = guarded.fit(guard).state_dict()
    assert all(bool(tensor.isfinite().all()) for tensor in state.values()) is is_whole
    if guard is not None:
        assert [(action.what, action.step) for action in guard.actions] == [("skip", 12)]


def test_the_remedy_of_the_page_brings_the_weights_nearer_to_the_truth():
    error, guard = own_remedy.guarded_fit(dry_run=False)
    error_without, shadow = own_remedy.guarded_fit(dry_run=True)
    assert error < 0.5 * error_without
    assert {action.what for action in guard.actions} == {"reduce_lr"}
    assert all(action.dry_run for action in shadow.actions)
    factors = [action.numbers["lr_factor"] for action in guard.actions]
    assert factors == pytest.approx(np.cumprod([0.3] * len(factors)).clip(0.01))


def test_the_remedy_of_the_page_goes_on_after_a_checkpoint():
    losses = np.random.default_rng(0).uniform(1.0, 2.0, 60).tolist()
    moments = [moment_of([1.0], frames=[SimpleNamespace(loss=loss)]) for loss in losses]
    through, stopped = own_remedy.CutOnPlateau(window=5), own_remedy.CutOnPlateau(window=5)
    decided = [through.decide(moment) for moment in moments]
    first = [stopped.decide(moment) for moment in moments[:33]]
    resumed = own_remedy.CutOnPlateau(window=5)
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert decided == first + [resumed.decide(moment) for moment in moments[33:]]
    assert decided[-1][0].factor < 0.1


def test_short_guarded_runs_get_the_verdict_they_deserve(tmp_path):
    runs = [run for run in GUARDED if run.name in SOON_OVER]
    # In a process of its own: the demonstration changes how torch counts, for all of it.
    trained = demo.guard_all(runs, 0, tmp_path, jobs=1)
    outcomes = {outcome.run: outcome for outcome in trained}
    assert set(outcomes) == set(SOON_OVER)
    assert [outcome.report for outcome in outcomes.values() if not outcome.is_as_expected] == []
    assert outcomes["nan-batch+skip"].acts == ("left out step 10",)
    assert outcomes["sigmoid10+robust"].kinds == ("vanishing",)


@pytest.mark.slow
def test_every_guarded_run_gets_the_verdict_it_deserves(tmp_path):
    outcomes = [*demo.guard_all(GUARDED, 0, tmp_path)]
    wrong = [f"{o.run}: {o.verdict}\n{o.report}" for o in outcomes if not o.is_as_expected]
    assert not wrong, "\n\n".join(wrong)
    assert len(outcomes) == len(GUARDED)


def test_the_program_with_a_guard_runs(capsys):
    guarded.main()
    assert "with the guard, not finite: nothing" in capsys.readouterr().out


def test_the_program_with_a_remedy_prints_what_the_page_shows(capsys):
    page = (ROOT / "docs" / "own-remedy.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    own_remedy.main()
    assert shown in capsys.readouterr().out
