"""What was written reads back, and nothing else is believed."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.history import HistoryError, disks, load_run
from lightning_gradguard.history.storage import Entry
from lightning_gradguard.history.writer import Writer
from tests.strategies import make_frame


def write(folder, frames, *, findings=(), finished="finished"):
    writer = Writer(folder / "gradguard" / "history.sqlite")
    for record in [*map(Entry, frames), *findings]:
        writer.add(record)
    writer.close(finished)


def test_a_statistic_reads_back_with_zero_nan_and_infinity(tmp_path):
    norms = [[1.0, 0.0, np.nan, np.inf], [1e-60, 2.0, 2.0, 2.0], [3.0] * 4]
    write(tmp_path, [make_frame(step, row) for step, row in enumerate(norms)])
    with load_run(tmp_path) as run:
        found = run.statistic("grad_norm")
    np.testing.assert_array_equal(found[[0, 2]], np.array(norms, np.float32)[[0, 2]])
    assert 0.0 < found[1, 0] < 1e-40


def test_a_resume_takes_the_place_of_the_steps_it_makes_again(tmp_path):
    lost = Finding(
        kind="spike", severity=Severity.INFO, step=8, message="lost", value=1.0, limit=0.5
    )
    kept = Finding(
        kind="spike", severity=Severity.INFO, step=3, message="kept", value=1.0, limit=0.5
    )
    write(tmp_path, [make_frame(s, loss=1.0) for s in range(10)], findings=[kept, lost])
    write(tmp_path, [make_frame(s, loss=2.0) for s in range(6, 8)], finished="exception")
    with load_run(tmp_path) as run:
        assert run.steps().tolist() == list(range(8))
        assert run.scalar("loss").tolist() == [1.0] * 6 + [2.0] * 2
        assert run.findings == (kept,)
        assert run.meta["finished"] == "exception"


def test_a_reader_sees_what_is_committed_while_the_run_goes_on(tmp_path):
    writer = Writer(tmp_path / "gradguard" / "history.sqlite")
    writer.add(Entry(make_frame(0)))
    writer.flush()
    with load_run(tmp_path) as run:
        assert (len(run.steps()), run.refresh()) == (1, False)
        writer.add(Entry(make_frame(1)))
        writer.flush()
        assert (run.refresh(), len(run.steps())) == (True, 2)
        assert run.meta["finished"] is None
        writer.close("finished")
        assert (run.refresh(), run.meta["finished"]) == (True, "finished")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"hello", "no SQLite"), (b"SQLite format 3\0", "cut off")],
)
def test_what_is_no_history_is_named_as_what_it_is(tmp_path, content, message):
    file = tmp_path / "history.sqlite"
    file.write_bytes(content)
    with pytest.raises(HistoryError, match=message):
        load_run(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("PRAGMA user_version = 2", "Update lightning-gradguard"),
        ("PRAGMA application_id = 1", "not a history"),
        ("CREATE VIEW more AS SELECT 1", "tables are others"),
    ],
)
def test_a_newer_or_foreign_file_is_refused(tmp_path, change, message):
    write(tmp_path, [make_frame(0)])
    connection = sqlite3.connect(tmp_path / "gradguard" / "history.sqlite")
    connection.execute(change)
    connection.close()
    with pytest.raises(HistoryError, match=message):
        load_run(tmp_path)


def test_a_file_that_was_cut_off_says_so(tmp_path):
    write(tmp_path, [make_frame(0)])
    file = tmp_path / "gradguard" / "history.sqlite"
    file.write_bytes(file.read_bytes()[:50_000])
    with pytest.raises(HistoryError, match="cut off"):
        load_run(tmp_path)


def test_what_a_killed_writer_left_is_read_again_when_it_is_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(disks, "is_on_network", lambda _folder: True)
    file = tmp_path / "gradguard" / "history.sqlite"
    write(tmp_path, [make_frame(0)])
    committed = file.read_bytes()
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO parts VALUES (?, '', zeroblob(9000))", [(i,) for i in range(99)]
    )
    half, journal = file.read_bytes(), file.with_name("history.sqlite-journal").read_bytes()
    connection.rollback()
    connection.close()
    assert half != committed
    file.write_bytes(half)
    file.with_name("history.sqlite-journal").write_bytes(journal)
    with load_run(tmp_path) as run:
        assert (run.steps().tolist(), next(iter(run.frames())).silent_units) == ([0], {})
        assert run.refresh() is False
        write(tmp_path, [make_frame(1)])
        assert (run.refresh(), run.steps().tolist()) == (True, [0, 1])


def test_a_folder_that_must_not_be_written_to_is_read(tmp_path):
    write(tmp_path, [make_frame(0)])
    for path in (tmp_path / "gradguard" / "history.sqlite", tmp_path / "gradguard"):
        path.chmod(0o555)
    try:
        with load_run(tmp_path) as run:
            assert run.steps().tolist() == [0]
    finally:
        (tmp_path / "gradguard").chmod(0o755)


def test_one_layer_reads_as_its_column_of_every_statistic(tmp_path):
    frames = [
        make_frame(0, [1.0, 2.0], optimizer_index=0, layers=("a", "b")),
        make_frame(0, [7.0, 8.0], optimizer_index=1, layers=("b", "c")),
        make_frame(1, [0.0, np.inf], optimizer_index=0, layers=("a", "b")),
        make_frame(1, [9.0, 9.0], optimizer_index=1, layers=("b", "c")),
        make_frame(2, [3.0, 4.0, 5.0], optimizer_index=0, layers=("a", "new", "b")),
    ]
    write(tmp_path, frames)
    with load_run(tmp_path) as run:
        for index in run.optimizers:
            for k, layer in enumerate(run.layers(index)):
                found = run.layer(layer, index)
                assert tuple(found) == run.statistics
                for name, numbers in found.items():
                    np.testing.assert_array_equal(numbers, run.statistic(name, index)[:, k])
        assert run.layer("b", 0)["grad_norm"].tolist() == [2.0, np.inf, 5.0]
        assert run.layer("new", 0)["grad_norm"][2] == 4.0
        assert run.layer("c", 1)["grad_norm"].tolist() == [8.0, 9.0]
        with pytest.raises(ValueError, match="one of the run's 2 layers, got '<b>'"):
            run.layer("<b>", 1)


def test_a_step_that_a_scaler_refused_is_read_beside_the_one_of_its_number(tmp_path):
    refused = make_frame(2, [np.inf], stepped=False, has_scaler=True)
    write(tmp_path, [make_frame(0), make_frame(1), refused, make_frame(2), make_frame(3)])
    with load_run(tmp_path) as run:
        assert run.steps().tolist() == [0, 1, 2, 2, 3]
        assert [frame.stepped for frame in run.frames()] == [True, True, False, True, True]
    write(tmp_path, [make_frame(2, [9.0] * 4)])
    with load_run(tmp_path) as run:
        assert run.steps().tolist() == [0, 1, 2]
        assert run.statistic("grad_norm")[2].tolist() == [9.0] * 4
