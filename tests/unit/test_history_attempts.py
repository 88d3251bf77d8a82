"""A run that was cut off and resumed reads as if each step had been made once, by the latest."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

from lightning_gradguard.audit import Action
from lightning_gradguard.history import load_run, view
from lightning_gradguard.history.storage import Entry, Storage
from lightning_gradguard.history.writer import Writer
from tests.strategies import make_finding, make_frame

LAYERS = {0: ("maker.0", "maker.1"), 1: ("critic.0",)}


def entry(step, index, attempt):
    norms = [float(100 * attempt + 10 * index + row) for row in range(len(LAYERS[index]))]
    return Entry(make_frame(step, norms, layers=LAYERS[index], optimizer_index=index,
                            loss=float(attempt)))  # fmt: skip


def spoken(step, index, attempt):
    """Return a finding and an action that tell what they are of."""
    said = f"attempt {attempt}"
    return [
        make_finding("spike", step=step, optimizer_index=index, message=said),
        Action(what="skip", step=step, optimizer_index=index, why=said),
    ]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "gradguard" / "history.sqlite"


def written(file, attempt, records, finished=None):
    storage = Storage(file, about={})
    storage.write(records)
    storage.close(finished)
    return attempt


KILLED = """
import os, signal, sys
from pathlib import Path
from lightning_gradguard.history.writer import Writer
from tests.unit.test_history_attempts import entry, spoken
writer = Writer(Path(sys.argv[1]))
for step in range(10):
    for index in (0, 1):
        writer.add(entry(step, index, 1))
        if step in (3, 8):
            for record in spoken(step, index, 1):
                writer.add(record)
writer.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_two_optimizers_that_take_turns_are_resumed_from_an_earlier_step(file):
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)  # noqa: S603 - ours
    assert done.returncode == -signal.SIGKILL
    with load_run(file) as run:
        assert run.meta["finished"] is None
        assert [run.steps(index).tolist() for index in (0, 1)] == [list(range(10))] * 2
    writer = Writer(file)
    for step in range(6, 8):
        for index in (0, 1):
            writer.add(entry(step, index, 2))
            for record in spoken(step, index, 2):
                writer.add(record)
    writer.close("finished")
    with load_run(file) as run:
        for index in (0, 1):
            assert run.steps(index).tolist() == list(range(8))
            assert run.scalar("loss", index).tolist() == [1.0] * 6 + [2.0] * 2
            norms = run.statistic("grad_norm", index)[:, 0].tolist()
            assert norms == [100.0 + 10 * index] * 6 + [200.0 + 10 * index] * 2
            assert [frame.step for frame in run.frames(index)] == list(range(8))
            drawn, _ = view.unpack(view.heatmap(run, "grad_norm", index))
            assert drawn["steps"] == list(range(8))
        made = [(3, 0, 1), (3, 1, 1), (6, 0, 2), (6, 1, 2), (7, 0, 2), (7, 1, 2)]
        assert [(f.step, f.optimizer_index, int(f.message[-1])) for f in run.findings] == made
        assert [(a.step, a.optimizer_index, int(a.why[-1])) for a in run.actions] == made
        assert [attempt["from_step"] for attempt in run.meta["attempts"]] == [0, 6]


def test_an_optimizer_that_was_not_reached_again_keeps_what_it_made(file):
    written(file, 1, [entry(step, index, 1) for step in range(10) for index in (0, 1)])
    written(file, 2, [entry(6, 0, 2)])
    with load_run(file) as run:
        assert run.steps(0).tolist() == list(range(7))
        assert run.steps(1).tolist() == list(range(10))


def told(rows):
    """Say which attempt each step of one optimizer is of, walking through what was written."""
    kept = []
    for attempt, step in rows:
        kept = [(a, s) for a, s in kept if s < step]
        kept.append((attempt, step))
    return {step: attempt for attempt, step in kept}


@pytest.mark.parametrize("seed", range(10))
def test_however_often_it_was_cut_off_each_step_is_of_the_latest_attempt(seed, file):
    chance = np.random.default_rng(seed)
    rows = {0: [], 1: []}
    at = 0
    for attempt in range(1, 7):
        records = []
        for step in range(at, at + int(chance.integers(1, 12))):
            for index in (0, 1):
                if index == 1 and step % 3:  # the second makes one step of three
                    continue
                records.append(entry(step, index, attempt))
                rows[index].append((attempt, step))
        last = records[int(chance.integers(len(records))) :]  # the kill is within a step
        for gone in last[1:]:
            rows[gone.frame.optimizer_index].remove((attempt, gone.frame.step))
        written(file, attempt, records[: len(records) - len(last) + 1])
        at = int(chance.integers(0, records[0].frame.step + len(records) // 2 + 1))
    with load_run(file) as run:
        for index in run.optimizers:
            expected = told(rows[index])
            assert run.steps(index).tolist() == sorted(expected)
            found = dict(zip(run.steps(index).tolist(), run.scalar("loss", index), strict=True))
            assert found == expected


def test_attempts_are_told_with_how_each_ended(file):
    for attempt, finished in enumerate(["exception", "interrupted", None, "finished"], 1):
        written(file, attempt, [entry(attempt, 0, attempt)], finished)
    with load_run(file) as run:
        said = [(one["from_step"], one["finished"]) for one in run.meta["attempts"]]
        assert said == [(1, "exception"), (2, "interrupted"), (3, None), (4, "finished")]
        assert run.meta["finished"] == "finished"
