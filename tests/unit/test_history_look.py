"""What a reader sees of a run whose layers change, or that goes on, or whose guard acts a lot."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import pytest

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.history import HistoryError, load_run, opening, view
from lightning_gradguard.history.layouts import merged
from lightning_gradguard.history.storage import Entry, Storage
from tests.strategies import make_frame


@pytest.fixture
def file(tmp_path):
    return tmp_path / "gradguard" / "history.sqlite"


def entry(step, layers):
    """Make an entry of names with norms."""
    names, norms = zip(*(layer.split(":") for layer in layers), strict=True)
    return Entry(make_frame(step, [float(norm) for norm in norms], layers=names))


def test_layers_that_come_and_go_stand_where_they_stand_in_depth(file):
    writer = Storage(file, about={})
    writer.write([entry(0, ["stem:1", "old:2", "head:3"]), entry(1, ["stem:4", "head:5"])])
    writer.write([entry(2, ["pre:6", "stem:7", "new.0:8", "new.1:9", "head:10"])])
    writer.close()
    with load_run(file) as run:
        assert run.layers() == ("pre", "stem", "old", "new.0", "new.1", "head")
        nan = np.nan
        np.testing.assert_array_equal(
            run.statistic("grad_norm"),
            [[nan, 1, 2, nan, nan, 3], [nan, 4, nan, nan, nan, 5], [6, 7, nan, 8, 9, 10]],
        )
        np.testing.assert_array_equal(run.layer("old")["grad_norm"], [2, nan, nan])


def test_where_two_orders_do_not_agree_the_first_holds():
    assert merged([["a", "b", "c"], ["c", "x", "a"], ["y"]]) == ("y", "a", "b", "c", "x")


def test_all_arrays_of_one_look_fit_together_whatever_is_written_meanwhile(file):
    writer = Storage(file, about={})
    writer.write([entry(0, ["a:1", "b:2"])])
    with load_run(file) as run:
        layers = run.layers()
        writer.write([entry(1, ["a:3", "b:4", "c:5"])])
        assert run.statistic("grad_norm").shape == (len(run.steps()), len(layers)) == (1, 2)
        assert [frame.layers for frame in run.frames()] == [("a", "b")]
        assert run.refresh()
        assert run.statistic("grad_norm").shape == (len(run.steps()), len(run.layers())) == (2, 3)
    writer.close()


@pytest.mark.parametrize("ask", ["layers", "steps", "frames"])
def test_an_optimizer_that_made_no_step_is_refused_by_name(file, ask):
    writer = Storage(file, about={})
    writer.write([Entry(make_frame(0)), Entry(make_frame(0, optimizer_index=2))])
    writer.close()
    with load_run(file) as run:
        assert run.optimizers == (0, 2)
        with pytest.raises(ValueError, match=r"`optimizer_index` must be one of 0, 2, got 1\."):
            getattr(run, ask)(1)


def test_news_are_told_once_and_only_what_is_new_is_read(file):
    writer = Storage(file, about={})
    found = Finding(kind="spike", severity=Severity.INFO, step=3, message="m")
    writer.write([found, Action(what="clip", step=2)])
    with load_run(file) as run:
        said, until = run.news()
        assert [record.step for record in said] == [3, 2]
        assert run.news(until) == ([], until)
        writer.write([Action(what="skip", step=9)])
        run.refresh()
        said, until = run.news(until)
        assert [record.step for record in said] == [9]
        assert run.news(until)[0] == []
    writer.close()


def test_a_guard_that_acts_at_every_step_is_shown_in_bunches(file):
    writer = Storage(file, about={})
    random = np.random.default_rng(0)
    steps = np.flatnonzero(random.random(15_000) < 0.5).tolist()
    writer.write([Entry(make_frame(s)) for s in range(10)])
    writer.write([Action(what="clip", step=s, why=f"at {s}") for s in steps])
    writer.write([Action(what="rollback", step=s) for s in (5, 7)])
    writer.close()
    with load_run(file) as run:
        bunches = run.action_bunches(most=100)
        clips = [bunch for bunch in bunches if bunch.first.what == "clip"]
        assert len(clips) == 100
        assert sum(bunch.times for bunch in clips) == len(steps)
        assert [b.first.step for b in bunches if b.first.what == "rollback"] == [5, 7]
        for bunch in clips:
            inside = [s for s in steps if bunch.first.step <= s <= bunch.last_step]
            assert bunch.times == len(inside)
            assert bunch.first.why == f"at {bunch.first.step}"
        assert len(json.dumps(view.overview(run))) < 200_000


def test_what_a_later_attempt_did_again_is_in_no_bunch(file):
    writer = Storage(file, about={})
    writer.write([Entry(make_frame(s)) for s in range(10)])
    writer.write([Action(what="clip", step=s) for s in range(10)])
    writer.close()
    writer = Storage(file, about={})
    writer.write([Entry(make_frame(s)) for s in range(5, 8)])
    writer.write([Action(what="clip", step=6)])
    writer.close()
    with load_run(file) as run:
        assert [bunch.first.step for bunch in run.action_bunches()] == [0, 1, 2, 3, 4, 6]


def test_a_file_that_somebody_else_holds_is_neither_copied_nor_called_damaged(file, monkeypatch):
    Storage(file, about={}).close()
    monkeypatch.setattr(opening, "_mended", lambda _path: pytest.fail("copied"))
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(HistoryError, match=r"cannot be read just now: .*Another process holds it"):
        load_run(file)
    holder.execute("ROLLBACK")
    holder.close()
    with load_run(file) as run:
        assert run.steps().tolist() == []
