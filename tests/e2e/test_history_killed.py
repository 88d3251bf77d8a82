"""A training that is killed at any moment loses nothing that was committed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

from lightning_gradguard.history import HistoryError, load_run
from lightning_gradguard.history.storage import Entry
from lightning_gradguard.history.writer import Writer
from tests.history_writer import frame, value

KILLS = 25


def write_and_kill(file, first, seconds, mode):
    """Return the last step that was said to be committed, None if none was."""
    command = [sys.executable, "-m", "tests.history_writer", str(file), str(first), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        lines = [process.stdout.readline()] if seconds > 0.1 else []
        time.sleep(seconds)
        process.kill()
        lines += process.stdout.read().split("\n")[:-1]
    steps = [int(line) for line in lines if line.strip()]
    return steps[-1] if steps else None


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["wal", "without-wal"])
def test_every_committed_step_survives_a_kill_and_a_resume_goes_on(tmp_path, mode):
    file = tmp_path / "gradguard" / "history.sqlite"
    chance = random.Random(mode)  # noqa: S311 - no secret
    first, committed = 0, -1
    for kill in range(KILLS):
        seconds = chance.uniform(0.0, 0.1) if kill % 5 == 0 else chance.uniform(0.1, 0.4)
        last = write_and_kill(file, first, seconds, mode)
        committed = committed if last is None else last
        if committed < 0:
            with suppress(HistoryError):  # nothing was committed yet: read or refused, no more
                load_run(tmp_path).close()
            continue
        with load_run(tmp_path) as run:
            steps = run.steps().tolist()
            assert steps == list(range(len(steps)))
            assert steps[-1] >= committed
            numbers = run.statistic("update_norm")
            assert {f.step for f in run.findings} >= set(range(0, committed + 1, 7))
            assert {a.step for a in run.actions} >= set(range(0, committed + 1, 7))
            assert run.meta["finished"] is None
        np.testing.assert_array_equal(numbers, np.array([value(s) for s in steps], np.float32))
        # As from a checkpoint a little earlier.
        first = max(0, steps[-1] + 1 - chance.randrange(0, 5))
        committed = first - 1
    assert first > KILLS
    writer = Writer(file)
    writer.add(Entry(frame(first)))
    writer.close("finished")
    with load_run(tmp_path) as run:
        assert run.steps().tolist() == list(range(first + 1))
        assert run.meta["finished"] == "finished"


@pytest.mark.slow
def test_a_kill_while_old_steps_are_thinned_leaves_whole_steps(tmp_path):
    file = tmp_path / "gradguard" / "history.sqlite"
    chance = random.Random(2)  # noqa: S311 - no secret
    first, counts = 0, []
    for _ in range(10):
        committed = write_and_kill(file, first, chance.uniform(0.15, 0.4), "thinning")
        with load_run(tmp_path) as run:
            steps = run.steps().tolist()
            assert steps == sorted(set(steps))
            assert steps[-1] >= (first if committed is None else committed)
            # The newest half is whole, the rest as it was written.
            assert steps[-20:] == list(range(steps[-1] - 19, steps[-1] + 1))
            expected = np.array([value(step) for step in steps], np.float32)
            for name in ("grad_norm", "update_norm"):
                np.testing.assert_array_equal(run.statistic(name), expected)
            assert [frame.step for frame in run.frames()] == steps
            counts.append(len(steps))
        first = steps[-1] + 1
    assert first > 4 * max(counts)
