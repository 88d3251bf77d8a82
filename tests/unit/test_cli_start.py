"""A command is there at once: from a shell, as a whole process, whatever it is asked for."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys

import pytest

from lightning_gradguard.cli import entry
from lightning_gradguard.history.storage import Entry, Storage
from tests.strategies import make_finding, make_frame

HEAVY = {"torch", "lightning", "pytorch_lightning", "lightning_fabric", "tensorboard"}
STEPS = 200

ARGUMENTS = {
    "summary": [],
    "report": ["-o", "{out}"],
    "tail": ["--once"],
    "export": ["-o", "{out}"],
    "replay": [],
    "doctor": [],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    storage = Storage(folder / "gradguard" / "history.sqlite", about={})
    storage.write([Entry(make_frame(step), {"overhead_ms": 0.5}) for step in range(STEPS)])
    storage.write([make_finding(step=3, layers=("l0",))])
    storage.close("finished")
    return folder


def seconds(*arguments):
    """Return the CPU time of a whole Python process, the middle of five."""

    def once():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)  # noqa: S603
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    once()  # so that byte code is there
    return statistics.median(once() for _ in range(5))


@pytest.fixture(scope="module")
def least():
    """What numpy and SQLite take, without which no history is read: about 0.2 s."""
    return seconds("-c", "import numpy, sqlite3")


def test_what_needs_no_history_is_said_in_less_than_numpy_takes(least):
    """0.1 s, of 0.3 s that are promised."""
    assert seconds("-m", "lightning_gradguard", "--version") < max(0.3, least)


def test_a_summary_takes_little_more_than_to_load_what_reads_it(least, run):
    taken = seconds("-m", "lightning_gradguard", "summary", str(run))
    assert taken < max(0.3, least + 0.2)


def test_all_commands_are_looked_at():
    # The check of a model runs the model, and so loads what it is made of.
    assert {*ARGUMENTS, "preflight"} == {command.NAME for command in entry.COMMANDS}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_no_command_loads_what_trains(name, run, tmp_path):
    options = [part.format(out=tmp_path / "out") for part in ARGUMENTS[name]]
    program = (
        "import json, sys\n"
        "from lightning_gradguard.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print()\n"
        f"print(json.dumps([code, sorted(sys.modules.keys() & {HEAVY})]))"
    )
    command = [sys.executable, "-c", program, name, str(run), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code in {0, 1}, done.stderr
    assert loaded == (["tensorboard"] if name == "doctor" and "tensorboard" in loaded else [])
