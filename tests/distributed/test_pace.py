"""Two processes look at the same steps, whatever happens to one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).with_name("pace_worker.py")


def run(folder: Path, mode: str) -> list[dict]:
    """Train on two processes and return what each rank wrote down."""
    subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(WORKER), str(folder), mode],
        cwd=WORKER.parents[2],
        check=True,
        timeout=120,  # ranks that wait for each other wait for ever
        capture_output=True,
    )
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_all_ranks_keep_the_same_interval(tmp_path):
    first, second = run(tmp_path, "healthy")
    assert first == second
    assert (first["intervals"], first["observed"], first["steps"]) == (1000, 25, 80)


@pytest.mark.slow
def test_a_rank_on_which_watching_was_switched_off_holds_nobody_up(tmp_path):
    first, second = run(tmp_path, "faulty")
    assert second["stopped"] == "RuntimeError: a bug"
    assert first["stopped"] is None
    assert first["intervals"] == second["intervals"] == 1000
    assert first["steps"] == second["steps"] == 80
    assert (first["observed"], second["observed"]) == (25, 12)


@pytest.mark.slow
def test_batches_accumulated_over_two_ranks_give_a_noise_scale(tmp_path):
    first, second = run(tmp_path, "accumulated")
    assert first["batches"] == [2, 2, 2, 2, 1] * 5
    assert first["norms"] == pytest.approx(second["norms"])
    # Before the ranks are averaged, each has the gradient of its own first batch.
    for batches, one, other in zip(
        first["batches"], first["firsts"], second["firsts"], strict=True
    ):
        assert (one == pytest.approx(other)) == (batches == 1)
    for rank in (first, second):
        assert rank["noise_scale"] == pytest.approx(noise_over_signal(rank), rel=1e-6)
        assert 0.0 < rank["noise_scale"] < 10.0


def noise_over_signal(rank) -> float:
    """Return what the windows of two batches say, four batches in all."""
    norms, firsts, batches = (np.array(rank[name]) for name in ("norms", "firsts", "batches"))
    mean, one = norms[batches == 2] ** 2, firsts[batches == 2] ** 2
    signal, noise = (4.0 * mean - one) / 3.0, (one - mean) / (1.0 - 1.0 / 4.0)
    return float(noise.mean() / signal.mean())
