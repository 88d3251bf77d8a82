"""Two processes under guard act alike, also on what only one of them has seen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.e2e.test_transparency import assert_identical

WORKER = Path(__file__).with_name("guard_worker.py")

pytestmark = pytest.mark.slow


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def train(folder: Path, *names: str, patience: float = 240.0) -> dict[str, list]:
    """Train on two processes, and return what each rank has left of each training."""
    known = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    known |= {"WORLD_SIZE": "2", "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    ranks, logs = [], [folder / f"rank {rank}.log" for rank in (0, 1)]
    for rank, log in enumerate(logs):
        with log.open("w") as file:
            ranks.append(
                subprocess.Popen(  # noqa: S603 - our own script
                    [sys.executable, str(WORKER), str(folder), *names],
                    cwd=WORKER.parents[2],
                    env={**known, "LOCAL_RANK": str(rank), "RANK": str(rank)},
                    stdout=file,
                    stderr=file,
                )
            )
    try:
        for rank, log in zip(ranks, logs, strict=True):
            # Ranks that wait for each other wait for ever.
            assert rank.wait(timeout=patience) == 0, log.read_text()[-3000:]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return {
        name: [
            torch.load(folder / f"{name}, rank {rank}.pt", weights_only=False) for rank in (0, 1)
        ]
        for name in names
    }


PAIRS = {
    "nan": ("nan, lacking", [["skip", 3], ["skip", 7]]),
    "nan, fused": ("nan, fused, lacking", [["skip", 3], ["skip", 7]]),
    "nan, scaler": ("nan, scaler, lacking", [["skip", 3], ["skip", 6]]),
    "nan, windows": ("nan, windows, lacking", [["skip", 1]]),
    "spike": ("spike, lacking", [["skip", 70]]),
    "rate": ("rate, by hand", [["reduce_lr", 4]]),
    "back": ("back, lacking", [["rollback", 9]]),
    "stop": ("stop, early", [["stop", 4]]),
}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    names = [*PAIRS, *(other for other, _ in PAIRS.values()), "clip", "clip, trainer's"]
    return train(tmp_path_factory.mktemp("guard"), *names)


@pytest.mark.parametrize("name", PAIRS)
def test_what_one_rank_has_seen_all_act_on_as_if_it_had_never_come(name, trainings):
    other, acts = PAIRS[name]
    first, second = trainings[name]
    assert_identical(first["left"], trainings[other][0]["left"])
    assert_identical(second["left"], trainings[other][1]["left"])
    parameters = [key for key in first["left"][0] if "running" not in key]
    assert all(torch.equal(first["left"][0][k], second["left"][0][k]) for k in parameters)
    assert first["acts"] == second["acts"] == acts


def test_clipping_is_that_of_the_trainer_on_all_ranks(trainings):
    for ours, theirs in zip(trainings["clip"], trainings["clip, trainer's"], strict=True):
        assert ours["acts"]
        for key, weights in ours["left"][0].items():
            torch.testing.assert_close(weights, theirs["left"][0][key], rtol=1e-4, atol=1e-6)


def test_a_step_that_only_one_rank_wants_to_leave_out_is_left_out_by_all(tmp_path):
    left = train(tmp_path, "skip", "skip, lacking", patience=60.0)
    for ours, theirs in zip(left["skip"], left["skip, lacking"], strict=True):
        assert_identical(ours["left"], theirs["left"])


@pytest.mark.parametrize("name", ["raise", "budget"])
def test_an_error_ends_all_ranks(name, tmp_path):
    first, second = train(tmp_path, name)[name]
    assert first["told"]
    assert second["told"]
    assert first["acts"] == second["acts"]
