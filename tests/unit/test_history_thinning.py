"""Old steps are thinned, and what mattered stays."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.history import load_run, shrinking, storage, thinning
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


def written(tmp_path, entries, batch=50, others=lambda _first: ()):
    """Write steps in batches; others come after each."""
    writer = Storage(tmp_path / "gradguard" / "history.sqlite", about={})
    for first in range(0, len(entries), batch):
        writer.write([*entries[first : first + batch], *others(first)])
    writer.close("finished")
    return load_run(tmp_path)


@pytest.mark.usefixtures("_small")
def test_spikes_of_one_layer_beneath_a_dominant_one_stay(tmp_path):
    random = np.random.default_rng(1)
    norms = np.exp(0.3 * random.normal(size=(6000, 20)))
    norms[:, 0] *= 1e4
    spikes = np.sort(random.choice(5500, 13, replace=False))
    for k, step in enumerate(spikes):
        norms[step, 1 + k] *= 100.0
    entries = [
        Entry(make_frame(s, row, global_grad_norm=float(np.linalg.norm(row))))
        for s, row in enumerate(norms)
    ]
    with written(tmp_path, entries) as run:
        assert len(run.steps()) <= 450
        assert set(spikes.tolist()) <= set(run.steps().tolist())


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("odd", [900.0, -40.0, float("inf"), float("nan")])
def test_a_loss_that_stands_out_stays(tmp_path, odd):
    losses = 3.0 + 0.1 * np.random.default_rng(2).normal(size=3000)
    losses[1234] = odd
    entries = [Entry(make_frame(s, loss=float(x))) for s, x in enumerate(losses)]
    with written(tmp_path, entries) as run:
        assert 1234 in run.steps()


@pytest.mark.usefixtures("_small")
def test_a_layer_that_is_exactly_zero_for_one_step_stays(tmp_path):
    norms = np.ones((3000, 4))
    norms[777, 3] = 0.0
    norms[:, 2] = 0.0
    norms[888, 2] = 1e-12
    with written(tmp_path, [Entry(make_frame(s, row)) for s, row in enumerate(norms)]) as run:
        assert {777, 888} <= set(run.steps().tolist())


@pytest.mark.usefixtures("_small")
def test_all_the_past_is_kept_about_equally_well(tmp_path):
    with written(tmp_path, [Entry(make_frame(s)) for s in range(12_000)]) as run:
        steps = run.steps()
    tenths = np.histogram(steps[steps < 11_000], bins=10, range=(0, 11_000))[0]
    assert tenths.min() >= 4
    assert tenths.max() <= 4 * tenths.min()
    assert steps[-150:].tolist() == list(range(11_850, 12_000))


def test_the_furthest_from_its_neighbours_is_found_as_a_slow_way_finds_it():
    random = np.random.default_rng(3)
    layers = np.exp2(random.normal(size=(80, 5)) * [0.5, 1, 2, 3, 4]).astype(np.float32)
    layers[random.random(layers.shape) < 0.1] = np.nan
    losses = random.normal(size=80)
    whole = np.ones(80)
    found = thinning.kept_steps(whole, layers, losses, np.zeros(80))

    def distances(column, least):
        groups = [column[k : k + 8] for k in range(0, 80, 8)]
        middles = [lower_median(group) for group in groups]
        away = [abs(group - middle) for group, middle in zip(groups, middles, strict=True)]
        usual = lower_median(np.array([lower_median(group) for group in away]))
        return np.nan_to_num(np.concatenate(away) / max(usual, least))

    def lower_median(values):
        known = sorted(values[~np.isnan(values)])
        return known[(len(known) - 1) // 2]

    by_column = [distances(np.log2(column.astype(float)), 0.25) for column in layers.T]
    worst = np.max([*by_column, distances(losses, 1e-3 * lower_median(abs(losses)))], axis=0)
    for k in range(0, 80, 8):
        assert set(np.flatnonzero(found[k : k + 8])) == set(np.argsort(-worst[k : k + 8])[:4])


def test_steps_that_were_made_again_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "most_steps", lambda *_: 120)
    file = tmp_path / "gradguard" / "history.sqlite"
    writer = Storage(file, about={})
    writer.write([Entry(make_frame(s, loss=1.0)) for s in range(100)])
    writer.close()
    writer = Storage(file, about={})
    writer.write([Entry(make_frame(s, loss=2.0)) for s in range(40, 61)])
    writer.close()
    with load_run(tmp_path) as run:
        assert set(range(20)) - set(run.steps().tolist())
        assert set(range(40, 61)) <= set(run.steps().tolist())
    with sqlite3.connect(file) as connection:
        counts = dict(connection.execute("SELECT step, count(*) FROM steps GROUP BY step"))
    assert [counts[step] for step in range(40, 60)] == [1] * 20


@pytest.mark.usefixtures("_small")
def test_neither_a_guard_that_acts_at_each_step_nor_many_findings_let_the_file_grow(tmp_path):
    def others(first):
        for s in range(first, first + 50):
            yield Action(what="skip", step=s)
            yield Action(what="reduce_lr", step=s, why="exploding")
            yield Finding(kind="spike", severity=Severity.WARNING, step=s, message="m")

    entries = [Entry(make_frame(s)) for s in range(3000)]
    with written(tmp_path, entries, others=others) as run:
        assert len(run.steps()) <= 450
        assert {a.step for a in run.actions if a.what == "skip"} == set(run.steps().tolist())
        assert sum(a.what == "reduce_lr" for a in run.actions) == 3000
        assert run.meta["thinned"]["skip"] == run.meta["thinned"]["steps"]


def test_of_too_many_records_the_first_and_the_latest_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(shrinking, "MOST_RECORDS", 200)

    def others(first):
        for s in range(first, first + 50):
            yield Action(what="reduce_lr" if s % 10 == 0 else "clip", step=s)
            yield Finding(kind="spike", severity=Severity.WARNING, step=s, message="m")

    entries = [Entry(make_frame(s)) for s in range(1000)]
    with written(tmp_path, entries, others=others) as run:
        for records in (run.actions, run.findings):
            steps = [record.step for record in records]
            assert 150 <= len(steps) <= 250
            assert steps[:20] == list(range(20))
            assert steps[-20:] == list(range(980, 1000))
        assert sum(a.what == "reduce_lr" for a in run.actions) == 100
        assert run.meta["thinned"]["clip"] + sum(a.what == "clip" for a in run.actions) == 900
        assert run.meta["thinned"]["findings"] + len(run.findings) == 1000


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
