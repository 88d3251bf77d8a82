"""Old steps are thinned, and what mattered stays."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.history import load_run, storage, thinning
from lightning_gradguard.history.storage import Entry, Storage
from lightning_gradguard.schema import HISTOGRAM_BINS
from tests.strategies import make_frame


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(storage, "most_steps", lambda *_: 400)


def norms_at(step, normal):
    row = normal[step].copy()
    if step == 100:
        row[2] = 1e9
    if step == 150:
        row[1] = 1e-9
    return row


@pytest.mark.usefixtures("_small")
def test_a_long_run_stays_small_and_keeps_what_mattered(tmp_path):
    normal = np.exp(np.random.default_rng(0).normal(size=(5000, 4)))
    file = tmp_path / "gradguard" / "history.sqlite"
    writer = Storage(file, about={})
    sizes = []
    for first in range(0, 5000, 50):
        batch = []
        for step in range(first, first + 50):
            broken = {"global_grad_norm": float("nan")} if step >= 300 and step % 7 == 6 else {}
            batch.append(Entry(make_frame(step, norms_at(step, normal), **broken)))
        if first == 50:
            batch.append(Finding(kind="spike", severity=Severity.INFO, step=77, message="m"))
            batch.append(Action(what="skip", step=81))
        writer.write(batch)
        sizes.append(file.stat().st_size + file.with_name("history.sqlite-wal").stat().st_size)
    writer.close("finished")
    with load_run(tmp_path) as run:
        steps = run.steps()
        assert 50 < len(steps) <= 450
        assert (np.diff(steps) > 0).all()
        assert {77, 81, 100, 150, 300 + (6 - 300 % 7) % 7} <= set(steps.tolist())
        assert steps[-50:].tolist() == list(range(4950, 5000))
        assert run.statistic("grad_norm").max() == np.float32(1e9)
        assert run.statistic("grad_norm").min() == np.float32(1e-9)
        assert [frame.step for frame in run.frames()] == steps.tolist()
        assert (len(run.findings), len(run.actions)) == (1, 1)
    assert file.stat().st_size < 3 * max(sizes[:8])


def test_steps_that_were_made_again_go_first():
    steps = np.array([0, 1, 2, 3, 1, 2, 3, 4])
    norms = np.arange(8.0)
    kept = thinning.kept_steps(steps, norms, norms[:, None].astype(np.float32), steps == 2)
    assert not kept[1:4].any()
    assert kept[5]


@pytest.mark.usefixtures("_small")
def test_clipping_of_every_step_does_not_keep_them_all(tmp_path):
    writer = Storage(tmp_path / "gradguard" / "history.sqlite", about={})
    for first in range(0, 1000, 50):
        steps = range(first, first + 50)
        writer.write([Entry(make_frame(s)) for s in steps])
        writer.write([Action(what="clip", step=s, numbers={"norm": 2.0}) for s in steps])
    writer.close("finished")
    with load_run(tmp_path) as run:
        assert len(run.steps()) <= 450
        assert {a.step for a in run.actions} == set(run.steps().tolist())


def test_a_reader_bears_that_steps_are_thinned_while_it_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "most_steps", lambda *_: 40)
    writer = Storage(tmp_path / "gradguard" / "history.sqlite", about={})
    counts = np.ones((4, HISTOGRAM_BINS))
    writer.write([Entry(make_frame(s, log2_histogram=counts)) for s in range(40)])
    with load_run(tmp_path) as run:
        frames = run.frames()
        next(frames)
        writer.write([Entry(make_frame(40))])
        assert [frame.step for frame in frames] == list(range(1, 40))
        assert np.isnan(run.statistic("grad_norm")).any()
        assert run.refresh()
        assert not np.isnan(run.statistic("grad_norm")).any()
    writer.close()
