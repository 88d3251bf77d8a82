"""A disk that stands still costs records, and neither time nor memory without end."""

from __future__ import annotations

import threading
import time

import pytest

from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.history import load_run
from lightning_gradguard.history import writer as writing
from lightning_gradguard.history.storage import Entry, Storage
from lightning_gradguard.history.writer import Writer
from tests.strategies import make_frame

MOST = 300


@pytest.fixture
def disk(monkeypatch):
    """Let a disk stand still until it is told to go on; `reached` says that it was asked."""

    class Disk:
        reached, goes_on = threading.Event(), threading.Event()

    class Stuck(Storage):
        def write(self, batch):
            Disk.reached.set()
            assert Disk.goes_on.wait(60.0)
            super().write(batch)

    monkeypatch.setattr(writing, "Storage", Stuck)
    monkeypatch.setattr(writing, "_MOST_WAITING", MOST)
    yield Disk
    Disk.goes_on.set()


def test_what_a_disk_that_stands_still_cannot_take_is_dropped_and_counted(disk, tmp_path):
    writer = Writer(tmp_path / "gradguard" / "history.sqlite")
    writer.add(Entry(make_frame(0)))
    assert disk.reached.wait(60.0)
    for step in range(1, 1000):
        writer.add(Entry(make_frame(step)))  # that this comes to an end is the point
    assert not disk.goes_on.is_set()
    assert len(writer._waiting) == MOST
    assert writer.dropped == 999 - MOST
    writer.add(Finding(kind="spike", severity=Severity.INFO, step=999, message="m"))
    assert writer.dropped == 1000 - MOST
    disk.goes_on.set()
    writer.close("finished")
    with load_run(tmp_path) as run:
        assert run.steps().tolist() == list(range(MOST + 1))
        assert run.findings == ()
        assert run.meta["dropped_records"] == writer.dropped
        assert run.meta["finished"] == "finished"


def test_a_disk_that_goes_on_takes_records_again(disk, tmp_path):
    writer = Writer(tmp_path / "gradguard" / "history.sqlite")
    for step in range(1000):
        writer.add(Entry(make_frame(step)))
    disk.goes_on.set()
    writer.flush()
    dropped = writer.dropped
    assert dropped > 0
    writer.add(Entry(make_frame(1000)))
    writer.close("finished")
    assert writer.dropped == dropped
    with load_run(tmp_path) as run:
        assert run.steps()[-1] == 1000
        assert len(run.steps()) == 1001 - dropped


def test_where_nothing_was_dropped_nothing_is_said_of_it(tmp_path):
    writer = Writer(tmp_path / "gradguard" / "history.sqlite")
    writer.add(Entry(make_frame(0)))
    writer.close("finished")
    with load_run(tmp_path) as run:
        assert "dropped_records" not in run.meta


def test_to_end_does_not_wait_without_end_for_a_disk_that_stands_still(disk, tmp_path):
    writer = Writer(tmp_path / "gradguard" / "history.sqlite")
    writer.add(Entry(make_frame(0)))
    assert disk.reached.wait(60.0)
    began = time.monotonic()
    writer.close("finished", timeout=0.1)
    assert time.monotonic() - began < 10.0
    assert writer._thread.is_alive()
