"""Two processes: the monitor changes nothing, agrees on all ranks, and only rank zero talks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_gradguard import load_run

WORKER = Path(__file__).with_name("ddp_worker.py")


def run(folder: Path, *, watched: bool) -> list[dict]:
    """Train on two processes and return what each rank wrote down."""
    folder.mkdir()
    subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(WORKER), str(folder), "watched" if watched else "alone"],
        cwd=WORKER.parents[2],
        check=True,
        timeout=300,
        capture_output=True,
    )
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_watching_two_processes_changes_nothing_and_all_ranks_measure_the_same(tmp_path):
    watched = run(tmp_path / "watched", watched=True)
    alone = run(tmp_path / "alone", watched=False)
    for rank in (0, 1):
        with_monitor = torch.load(tmp_path / "watched" / f"rank{rank}.pt", weights_only=True)
        without = torch.load(tmp_path / "alone" / f"rank{rank}.pt", weights_only=True)
        assert all(torch.equal(with_monitor[name], without[name]) for name in without)
    # Gradients are averaged before they are read, so both ranks see the same numbers, and these
    # are what each rank's own hook computes in float64.
    assert watched[0]["norms"] == watched[1]["norms"] == pytest.approx(alone[0]["oracle"])
    assert watched[0]["findings"] == ["nonfinite"]
    # Each rank has its own half of the data, so the losses differ.
    assert alone[0]["losses"] != alone[1]["losses"]
    assert watched[0]["told"] > 0
    assert watched[1]["told"] == 0
    assert [rank["alerted"] for rank in watched] == [["nonfinite"], []]
    with load_run(tmp_path / "watched") as history:  # one, of rank zero
        assert history.meta["finished"] == "finished"
        norms = history.scalar("global_grad_norm")
    assert norms[np.isfinite(norms)].tolist() == watched[0]["norms"]
