"""A history whose file others touch, hold, delete or write to, too, while a training writes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.history import HistoryError, disks, load_run
from lightning_gradguard.history import writer as writing
from lightning_gradguard.history.places import next_free
from lightning_gradguard.history.storage import Entry, Storage
from lightning_gradguard.history.writer import Writer
from tests.strategies import make_frame


@pytest.fixture
def file(tmp_path):
    return tmp_path / "gradguard" / "history.sqlite"


def locks_of_this_process():
    with open("/proc/locks", encoding="ascii") as lines:  # noqa: PTH123 - no file of a disk
        # Without its number in the list, which is of all processes.
        return [line.partition(":")[2] for line in lines if f" {os.getpid()} " in line]


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="Linux only")  # noqa: PTH110
@pytest.mark.parametrize("without_wal", [False, True])
def test_reading_in_the_process_that_writes_takes_no_lock_away(file, without_wal, monkeypatch):
    monkeypatch.setattr(disks, "is_on_network", lambda _folder: without_wal)
    storage = Storage(file, about={})
    storage.write([Entry(make_frame(0))])
    if without_wal:
        storage._connection.execute("BEGIN IMMEDIATE")
    before = locks_of_this_process()
    assert before
    with load_run(file) as run:
        assert run.steps().tolist() == [0]
        assert set(before) <= set(locks_of_this_process())
    assert set(before) <= set(locks_of_this_process())
    if without_wal:
        storage._connection.execute("ROLLBACK")
    storage.close()


def test_a_file_that_somebody_holds_is_waited_for(file, monkeypatch):
    monkeypatch.setattr(writing, "_SECONDS", 0.05)
    writer = Writer(file)
    writer.flush()
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    writer.add(Entry(make_frame(0)))
    # Longer than SQLite itself waits.
    timer = threading.Timer(6.0, lambda: other.execute("ROLLBACK"))
    timer.start()
    for step in range(1, 300):
        writer.add(Entry(make_frame(step)))
    writer.close("finished")
    timer.join()
    other.close()
    with load_run(file) as run:
        assert run.steps().tolist() == list(range(300))
        assert run.meta["finished"] == "finished"


def test_what_was_undone_is_written_whole_the_next_time(file):
    storage = Storage(file, about={})
    whole = storage._write_batch

    def half(batch):
        whole(batch)
        msg = "disk is full"
        raise sqlite3.OperationalError(msg)

    storage._write_batch = half
    with pytest.raises(sqlite3.OperationalError):
        storage.write([Entry(make_frame(0, [3.0]))])
    del storage._write_batch
    storage.write([Entry(make_frame(0, [3.0]))])
    storage.close()
    with load_run(file) as run:
        assert run.statistic("grad_norm").tolist() == [[3.0]]
        assert run.layers() == make_frame(0, [3.0]).layers


def test_no_two_writers_are_given_the_same_file(tmp_path):
    path = tmp_path / "gradguard" / "history.sqlite"
    assert len({next_free(path) for _ in range(5)}) == 5


def test_two_writers_of_one_file_lose_nothing(file):
    writers = [Writer(file), Writer(file)]
    for step in range(100):
        writers[step % 2].add(Entry(make_frame(step)))
        writers[step % 2].flush()
    for writer in writers:
        writer.close("finished")
    with load_run(file) as run:
        assert run.steps().tolist() == list(range(100))
        assert len(run.meta["attempts"]) == 2


@pytest.mark.parametrize("number", [np.int64(5), np.float32(5.0)])
def test_a_record_with_numbers_of_numpy_is_kept(number, file):
    writer = Writer(file)
    writer.add(Finding(kind="k", severity=Severity.INFO, step=5, message="m", value=number))
    writer.add(Action(what="skip", step=int(number), numbers={"norm": number}))
    writer.close("finished")
    with load_run(file) as run:
        assert run.findings[0].value == 5.0
        assert run.actions[0].numbers == {"norm": 5.0}


def test_a_record_that_is_none_costs_itself_and_no_more(file):
    numbers = {}
    numbers["self"] = numbers
    writer = Writer(file)
    writer.add(Entry(make_frame(0)))
    writer.add(Action(what="skip", step=0, numbers=numbers))
    writer.add(Entry(make_frame(1)))
    writer.close("finished")
    with load_run(file) as run:
        assert run.steps().tolist() == [0, 1]
        assert run.actions == ()
        assert run.meta["skipped_records"] == 1


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_deleted_is_told(file, replaced):
    writer = Writer(file)
    writer.add(Entry(make_frame(0)))
    writer.flush()
    file.rename(file.with_name("elsewhere"))
    if replaced:
        file.write_bytes(b"")
    writer.add(Entry(make_frame(1)))
    with pytest.raises(HistoryError, match="replaced" if replaced else "cannot be found any more"):
        writer.flush()


def test_a_program_that_ends_without_a_word_loses_nothing(file):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lightning_gradguard.history.storage import Entry\n"
        "from lightning_gradguard.history.writer import Writer\n"
        "from tests.history_writer import frame\n"
        "writer = Writer(Path(sys.argv[1]))\n"
        "for step in range(100): writer.add(Entry(frame(step)))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)  # noqa: S603 - ours
    with load_run(file) as run:
        assert run.steps().tolist() == list(range(100))
        assert run.meta["finished"] is None


def test_what_waits_takes_a_bounded_memory():
    def megabytes(layers):
        frame = make_frame(0, [1.0] * layers)
        each = sum(v.nbytes for v in vars(frame).values() if isinstance(v, np.ndarray))
        return writing._most_waiting(Entry(frame)) * each / 1e6

    assert megabytes(4) < 10.0
    assert megabytes(400) < 150.0
    assert megabytes(2000) < 150.0


def test_a_resumed_attempt_says_from_which_step(file):
    for first in (0, 7):
        writer = Writer(file)
        writer.add(Entry(make_frame(first)))
        writer.close("finished")
    with load_run(file) as run:
        assert [attempt["from_step"] for attempt in run.meta["attempts"]] == [0, 7]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_neither_waits_nor_writes(file):
    writer = Writer(file)
    writer.add(Entry(make_frame(0)))
    writer.flush()
    child = os.fork()
    if child == 0:
        writer.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    writer.close("finished")
    with load_run(file) as run:
        assert run.steps().tolist() == [0]
