"""A training writes its history: what was seen, how it ended, and nothing of it is felt."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lightning_gradguard import GradientGuard, GradientMonitor, load_run
from lightning_gradguard.events import Observation
from lightning_gradguard.history import find_histories
from lightning_gradguard.history.packing import as_float32
from lightning_gradguard.history.tables import STATISTICS
from tests.e2e.models import Classifier, mlp, random_data, trainer


class Collect:
    """Keep the frames."""

    def __init__(self):
        self.frames = []

    def emit(self, event):
        if isinstance(event, Observation):
            self.frames.append(event.frame)


class Fails(pl.Callback):
    """Raise in one batch."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 2:
            raise self.error


def fit(folder, *callbacks, data=None, ckpt_path=None, **options):
    pl.seed_everything(7, verbose=False)
    model = Classifier(mlp())
    training = trainer(*callbacks, logger=CSVLogger(folder, version=0), **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory|Be aware that when")
        training.fit(model, data or random_data(64, 6), ckpt_path=ckpt_path)
    return model


def test_what_was_seen_reads_back(tmp_path):
    seen = Collect()
    fit(tmp_path, GradientMonitor(sinks=[seen], history=True), log_every_n_steps=3)
    with load_run(tmp_path) as run:
        read = list(run.frames())
        assert run.path.name == "history.sqlite"
        assert run.meta["finished"] == "finished"
        assert run.meta["model"].endswith("Classifier")
        assert run.meta["versions"]["torch"] == torch.__version__
        assert "gradguard" in run.meta["summary"]
    assert len(read) == len(seen.frames) > 0
    for one, other in zip(read, seen.frames, strict=True):
        for name in STATISTICS:
            np.testing.assert_array_equal(getattr(one, name), as_float32(getattr(other, name)))
        for name in ("step", "epoch", "batch_idx", "layers", "roles", "loss", "learning_rates"):
            assert getattr(one, name) == getattr(other, name)
        for name in ("global_grad_norm", "global_grad_norm_at_update", "clip_coefficient"):
            assert getattr(one, name) == getattr(other, name)
        np.testing.assert_equal(one.log2_histogram, other.log2_histogram)
        np.testing.assert_equal(dict(one.silent_units), dict(other.silent_units))


def test_weights_are_those_of_a_training_without_it(tmp_path):
    one = fit(tmp_path / "one", GradientMonitor(history=True)).state_dict()
    other = fit(tmp_path / "other").state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(find_histories(tmp_path)) == 1


@pytest.mark.parametrize(
    ("error", "ended"), [(ValueError("no"), "exception"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_history_says_how_the_training_ended(tmp_path, error, ended):
    with pytest.raises((ValueError, SystemExit, KeyboardInterrupt)):
        fit(tmp_path, GradientMonitor(), Fails(error))
    with load_run(tmp_path) as run:
        assert (run.meta["finished"], run.steps().tolist()) == (ended, [0, 1])


def test_a_resumed_training_continues_its_file(tmp_path):
    saving = ModelCheckpoint(
        tmp_path / "kept", filename="saved", every_n_train_steps=4, save_top_k=-1
    )
    fit(tmp_path, GradientMonitor(), saving, enable_checkpointing=True, max_epochs=1)
    file = str(next(tmp_path.glob("kept/saved*.ckpt")))
    fit(tmp_path, GradientMonitor(), ckpt_path=file, max_epochs=2)
    with load_run(tmp_path) as run:
        assert run.steps().tolist() == list(range(16))
        assert len(run.meta["attempts"]) == 2
    fit(tmp_path, GradientMonitor(), max_epochs=1)  # a new run leaves it as it is
    names = [path.name for path in find_histories(tmp_path)]
    assert names == ["history-2.sqlite", "history.sqlite"]


def test_findings_and_actions_are_there(tmp_path):
    data = random_data(64, 6)
    data.dataset.tensors[0][20] = float("nan")
    guard = GradientGuard(on_nonfinite="skip")
    fit(tmp_path, guard, data=data)
    with load_run(tmp_path) as run:
        assert run.findings == guard.findings != ()
        assert [a.what for a in run.actions] == [a.what for a in guard.actions]
        assert "skip" in {a.what for a in run.actions}


@pytest.mark.parametrize(
    ("monitor", "options"),
    [({"history": False}, {}), ({"sinks": []}, {}), ({}, {"fast_dev_run": True})],
)
def test_no_file_is_written_where_none_is_wanted(tmp_path, monitor, options):
    fit(tmp_path, GradientMonitor(**monitor), **options)
    assert find_histories(tmp_path) == []


def test_a_disk_that_refuses_ends_no_training(tmp_path):
    (tmp_path / "lightning_logs" / "version_0").mkdir(parents=True)
    (tmp_path / "lightning_logs" / "version_0" / "gradguard").write_text("in the way")
    with pytest.warns(UserWarning, match="history|HistorySink"):
        fit(tmp_path, GradientMonitor())
