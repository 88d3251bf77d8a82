"""How a training ended is in its history, and whether the next one continues it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lightning_gradguard import GradientMonitor, load_run
from lightning_gradguard.cli import main
from lightning_gradguard.history import HistoryError, find_histories
from lightning_gradguard.report.html import render_report
from tests.e2e.models import Classifier, TwoOptimizers, mlp, random_data, trainer

ROOT = Path(__file__).resolve().parents[2]

TRAINING = """
import sys, time
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from lightning_gradguard import GradientMonitor
from tests.e2e.models import Classifier, TwoOptimizers, mlp, random_data, trainer
from tests.e2e.test_history_ends import training_of, KillsItself

class Slow(Classifier):
    def training_step(self, batch, batch_idx):
        time.sleep(0.02)
        return super().training_step(batch, batch_idx)
"""
ENDLESS = """
training_of(sys.argv[1], GradientMonitor(), max_epochs=-1).fit(Slow(mlp()), random_data(64, 6))
"""
KILLED = """
pl.seed_everything(7, verbose=False)
kept = sys.argv[1] + "/kept"
saving = ModelCheckpoint(kept, filename="saved", every_n_epochs=1)
callbacks = GradientMonitor(), saving, KillsItself()
training = training_of(sys.argv[1], *callbacks, enable_checkpointing=True)
training.fit(TwoOptimizers(), random_data(64, 6))
"""


class KillsItself(pl.Callback):
    """Ends the process as a machine does that runs out of memory, when the history has it."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 4:
            time.sleep(1.5)
            os.kill(os.getpid(), signal.SIGKILL)


def training_of(folder, *callbacks, **options):
    return trainer(*callbacks, logger=CSVLogger(folder, version=0), **options)


def fit(training, model, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs|Be aware that when")
        training.fit(model, random_data(64, 6), **options)


def process(program, folder):
    command = [sys.executable, "-W", "ignore", "-c", TRAINING + program, str(folder)]
    return subprocess.Popen(  # noqa: S603 - a program of ours
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, stderr=subprocess.DEVNULL
    )


def steps_of(folder):
    """Return how many steps are committed."""
    try:
        with load_run(folder) as run:
            return len(run.steps())
    except (HistoryError, ValueError):
        return 0


@pytest.mark.slow
def test_a_training_that_is_told_to_end_says_so_whichever_way_it_was_told(tmp_path):
    folders = {tmp_path / name: getattr(signal, name) for name in ("SIGTERM", "SIGINT")}
    running = {folder: process(ENDLESS, folder) for folder in folders}
    until = time.monotonic() + 120.0
    try:
        for folder, number in folders.items():
            while not steps_of(folder):
                assert time.monotonic() < until
                assert running[folder].poll() is None
                time.sleep(0.05)
            running[folder].send_signal(number)
        for child in running.values():
            child.wait(60.0)
    finally:
        for child in running.values():
            child.kill()
    for folder in folders:
        with load_run(folder) as run:
            assert run.meta["finished"] == "interrupted"
            assert [one["finished"] for one in run.meta["attempts"]] == ["interrupted"]
            assert run.steps().tolist() == list(range(len(run.steps())))
            assert "gradguard" in run.meta["summary"]


@pytest.mark.slow
def test_two_optimizers_killed_and_resumed_read_as_a_training_that_went_through(tmp_path):
    assert process(KILLED, tmp_path / "cut").wait(120.0) == -signal.SIGKILL
    with load_run(tmp_path / "cut") as run:
        assert run.meta["finished"] is None
        assert min(len(run.steps(index)) for index in run.optimizers) >= 12
    (saved,) = (tmp_path / "cut" / "kept").glob("saved*.ckpt")
    training = training_of(tmp_path / "cut", GradientMonitor())
    fit(training, TwoOptimizers(), ckpt_path=str(saved))
    pl.seed_everything(7, verbose=False)
    fit(training_of(tmp_path / "whole", GradientMonitor()), TwoOptimizers())
    with load_run(tmp_path / "cut") as cut, load_run(tmp_path / "whole") as whole:
        assert len(cut.meta["attempts"]) == 2
        assert cut.meta["attempts"][1]["from_step"] == 8
        for index in whole.optimizers:
            assert cut.steps(index).tolist() == whole.steps(index).tolist() == list(range(16))
            for name in ("grad_norm", "update_norm"):
                one, other = (run.statistic(name, index) for run in (cut, whole))
                np.testing.assert_allclose(one, other, rtol=1e-5)


def names(folder):
    return [path.name for path in find_histories(folder)]


def test_a_trainer_that_fits_on_continues_its_file(tmp_path):
    monitor, model = GradientMonitor(), Classifier(mlp())
    training = training_of(tmp_path, monitor, max_epochs=1)
    fit(training, model)
    training.fit_loop.max_epochs = 2
    fit(training, model)
    assert names(tmp_path) == ["history.sqlite"]
    with load_run(tmp_path) as run:
        assert run.steps().tolist() == list(range(16))
        assert [one["from_step"] for one in run.meta["attempts"]] == [0, 8]


def test_a_new_trainer_begins_a_file_of_its_own_though_the_monitor_is_the_same(tmp_path):
    monitor, model = GradientMonitor(), Classifier(mlp())
    for _ in range(2):
        fit(training_of(tmp_path, monitor, max_epochs=1), model)
    assert names(tmp_path) == ["history-2.sqlite", "history.sqlite"]
    for file in find_histories(tmp_path):
        with load_run(file) as run:
            assert run.steps().tolist() == list(range(8))
            assert len(run.meta["attempts"]) == 1


def test_a_checkpoint_that_is_resumed_elsewhere_begins_there_at_its_step(tmp_path):
    saving = ModelCheckpoint(tmp_path / "kept", filename="saved", every_n_train_steps=4)
    options = {"enable_checkpointing": True, "max_epochs": 1}
    fit(training_of(tmp_path / "one", GradientMonitor(), saving, **options), Classifier(mlp()))
    (saved,) = (tmp_path / "kept").glob("saved*.ckpt")
    training = training_of(tmp_path / "other", GradientMonitor(), max_epochs=2)
    fit(training, Classifier(mlp()), ckpt_path=str(saved))
    assert names(tmp_path / "other") == ["history.sqlite"]
    with load_run(tmp_path / "one") as one, load_run(tmp_path / "other") as other:
        assert one.steps().tolist() == list(range(8))
        assert len(one.meta["attempts"]) == 1
        assert other.steps()[-1] == 15
        assert other.steps()[0] == other.meta["attempts"][0]["from_step"] > 0


def test_what_watching_took_is_told_alike_by_the_history_the_summary_and_the_report(
    tmp_path, capsys
):
    fit(training_of(tmp_path, GradientMonitor()), Classifier(mlp()))
    with load_run(tmp_path) as run:
        known = run.scalar("overhead_ms")
        taken = known[~np.isnan(known)][-1]
        page = render_report([run])
    assert 0.0 < taken < 100.0
    assert main(["summary", str(tmp_path)]) == 0
    cost = f"  cost    {taken:.2f} ms per step; 16 steps observed, 16 made"
    assert cost in capsys.readouterr().out.splitlines()
    assert f"watching took {taken:.3g} ms per step" in page
