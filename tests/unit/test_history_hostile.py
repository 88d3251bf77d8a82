"""A history from elsewhere: read or refused, never believed."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from contextlib import contextmanager

import numpy as np
import pytest

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.history import HistoryError, find_histories, load_run
from lightning_gradguard.history.storage import Entry
from lightning_gradguard.history.writer import Writer
from lightning_gradguard.schema import HISTOGRAM_BINS
from tests.strategies import make_frame


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gradguard" / "history.sqlite"
    writer = Writer(path)
    for step in range(20):
        counts = np.ones((4, HISTOGRAM_BINS)) if step % 5 == 0 else None
        silent = {"l1": np.array([True, False])}
        writer.add(Entry(make_frame(step, log2_histogram=counts, silent_units=silent)))
    writer.add(Finding(kind="spike", severity=Severity.INFO, step=3, message="m"))
    writer.add(Action(what="skip", step=4))
    writer.close("finished")
    return path


def read_all(path):
    with load_run(path) as run:
        dict(run.meta)
        for index in run.optimizers:
            list(run.frames(index))
            for name in run.statistics:
                run.statistic(name, index)
            for name in run.scalars:
                run.scalar(name, index)
            for layer in run.layers(index)[:2]:
                run.histograms(layer, index)
        return run.findings, run.actions


@contextmanager
def within(seconds):
    """Raise where something takes longer."""

    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_or_refused(path):
    with within(20):
        try:
            read_all(path)
        except HistoryError:
            return False
    return True


def change(file, *texts):
    connection = sqlite3.connect(file)
    for text in texts:
        connection.execute(text)
    connection.commit()
    connection.close()


def test_random_bytes_are_refused(tmp_path):
    chance = random.Random(0)  # noqa: S311 - no secret
    path = tmp_path / "history.sqlite"
    for size in (1, 15, 16, 99, 100, 512, 70_000):
        path.write_bytes(chance.randbytes(size))
        with pytest.raises(HistoryError):
            read_all(path)


def test_a_file_cut_anywhere_is_refused(file):
    whole = file.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 40).astype(int).tolist():
        file.write_bytes(whole[:size])
        with pytest.raises(HistoryError):
            read_all(file)


def test_wrong_bytes_anywhere_are_read_or_refused(file):
    whole, chance = file.read_bytes(), random.Random(1)  # noqa: S311 - no secret
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(chance.choice([1, 10, 1000])):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        broken[:100] = whole[:100]  # the head is looked at elsewhere
        file.write_bytes(broken)
        read_or_refused(file)


def test_a_foreign_database_is_refused(tmp_path):
    path = tmp_path / "history.sqlite"
    change(path, "CREATE TABLE steps (id)", "PRAGMA user_version = 1")
    with pytest.raises(HistoryError, match="not a history"):
        read_all(path)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE VIEW v AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM steps; END",
        "CREATE INDEX i ON steps (step)",
        "CREATE TABLE more (x)",
        "DROP TABLE stat_grad_norm",
    ],
)
def test_tables_that_are_not_ours_are_refused(file, text):
    change(file, text)
    with pytest.raises(HistoryError, match="not a history"):
        read_all(file)


@pytest.mark.parametrize(
    "text",
    [
        "UPDATE stat_grad_norm SET data = zeroblob(100000000) WHERE id = 3",
        "UPDATE histogram SET data = zeroblob(100000000)",
        "UPDATE parts SET data = x'ffffffff'",
        "UPDATE parts SET data = x'10000000789c'",
        "UPDATE stat_grad_norm SET data = 'text'",
        "UPDATE stat_grad_norm SET data = NULL || 1 WHERE 0",
        "UPDATE steps SET layout = 999",
        "UPDATE steps SET step = 'no'",
        "UPDATE steps SET epoch = 1e300",
        "UPDATE steps SET scalars = zeroblob(128), present = -1",
        "UPDATE steps SET learning_rates = 5",
        "UPDATE layouts SET about = '[]'",
        "UPDATE layouts SET about = '{\"layers\": 5}'",
        "UPDATE layouts SET about = '{\"layers\": [[1], {}, null]}'",
        "UPDATE layouts SET optimizer = 1e9",
        "UPDATE findings SET record = '{}'",
        "UPDATE findings SET record = '[1, 2]'",
        'UPDATE actions SET record = \'{"what": 5, "step": "x"}\'',
        "UPDATE meta SET value = 'not json'",
        "UPDATE meta SET value = replace(hex(zeroblob(50000)), '00', '[')",
        "UPDATE attempts SET about = 'NaN'",
    ],
)
def test_rows_that_are_not_ours_are_read_or_refused(file, text):
    change(file, text)
    read_or_refused(file)


def test_a_run_of_more_numbers_than_fit_is_refused(file):
    about = {"layers": [str(i) for i in range(30_000)], "roles": [], "is_sampled": []}
    change(
        file,
        "INSERT INTO steps SELECT s.id + 100 * value, attempt, optimizer, layout, "
        "step + 100 * value, epoch, batch, flags, present, scalars, learning_rates "
        "FROM steps s, (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c "
        "WHERE value < 1000) SELECT value FROM c)",
    )
    connection = sqlite3.connect(file)
    connection.execute("UPDATE layouts SET about = ?", (json.dumps(about),))
    connection.commit()
    connection.close()
    with load_run(file) as run, pytest.raises(HistoryError, match="too large"):
        run.statistic("grad_norm")


def test_reading_changes_no_byte(file):
    before = file.read_bytes()
    read_all(file)
    assert file.read_bytes() == before
    assert sorted(p.name for p in file.parent.iterdir()) == ["history.sqlite"]


def test_pipes_and_links_in_circles_hang_nothing(file):
    os.mkfifo(file.with_name("history-2.sqlite"))
    (file.parent / "circle").symlink_to(file.parent.parent)
    with within(5):
        assert find_histories(file.parent.parent) == [file]
        with pytest.raises(HistoryError):
            load_run(file.with_name("history-2.sqlite"))


def test_a_journal_that_names_another_file_deletes_nothing(file, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    name = str(victim).encode()
    magic = bytes.fromhex("d9d505f920a163d7")
    head = magic + (0).to_bytes(4, "big") + bytes(4) + (1).to_bytes(4, "big")
    head += (512).to_bytes(4, "big") + (4096).to_bytes(4, "big")
    tail = bytes(4) + name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + magic
    file.with_name("history.sqlite-journal").write_bytes(head.ljust(512, b"\0") + tail)
    read_or_refused(file)
    assert victim.read_text() == "mine"


def test_several_or_none_or_remote_are_named(file, tmp_path):
    other = tmp_path / "other" / "gradguard" / "history.sqlite"
    other.parent.mkdir(parents=True)
    other.write_bytes(file.read_bytes())
    with pytest.raises(HistoryError, match=r"2 histories.*name one"):
        load_run(tmp_path)
    with pytest.raises(HistoryError, match="remote"):
        load_run("s3://bucket/run")
    with pytest.raises(HistoryError, match="no file or folder"):
        load_run(tmp_path / "nothing")
    with pytest.raises(HistoryError, match="no history"):
        load_run(tmp_path_empty(tmp_path))


def tmp_path_empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


FINDING = {"kind": "spike", "severity": 20, "step": 3, "message": "m"}
ACTION = {"what": "skip", "step": 4, "numbers": {}}


@pytest.mark.parametrize(
    ("table", "change_of"),
    [
        ("findings", {"layers": [1]}),
        ("findings", {"step": "x"}),
        ("findings", {"kind": []}),
        ("findings", {"kind": None}),
        ("findings", {"message": None}),
        ("findings", {"episode_id": []}),
        ("findings", {"value": "x"}),
        ("findings", {"state": "odd"}),
        ("findings", {"rank": "x"}),
        ("actions", {"numbers": {"x": {}}}),
        ("actions", {"what": None}),
        ("actions", {"step": "x"}),
        ("actions", {"why": 5}),
    ],
)
def test_a_record_of_other_types_is_refused(table, change_of, file):
    record = {**(FINDING if table == "findings" else ACTION), **change_of}
    change(file, f"UPDATE {table} SET record = '{json.dumps(record)}'")  # noqa: S608 - ours
    with load_run(file) as run, pytest.raises(HistoryError):
        getattr(run, table)


def test_deep_json_is_refused_before_anybody_walks_through_it(file):
    deep = "[" * 500 + "]" * 500
    change(file, f"UPDATE meta SET value = '{deep}'")  # noqa: S608 - ours
    with load_run(file) as run, pytest.raises(HistoryError, match="deep"):
        dict(run.meta)


def test_texts_that_are_large_together_are_refused(file):
    rows = ", ".join(f"('k{i}', '\"' || replace(hex(zeroblob(900000)), '00', 'x') || '\"')"
                     for i in range(8))  # fmt: skip
    change(file, f"INSERT INTO meta VALUES {rows}")  # noqa: S608 - ours
    with load_run(file) as run, pytest.raises(HistoryError, match="too large"):
        dict(run.meta)


def test_layers_of_one_name_are_refused(file):
    about = {"layers": ["same"] * 4, "roles": ["other"] * 4, "is_sampled": [0] * 4}
    change(file, f"UPDATE layouts SET about = '{json.dumps(about)}'")  # noqa: S608 - ours
    with load_run(file) as run, pytest.raises(HistoryError, match="different names"):
        run.layers()


@pytest.mark.parametrize("step", [-1, 2**60])
def test_steps_that_no_run_makes_are_refused(step, file):
    change(file, f"UPDATE steps SET step = {step} WHERE id = 20")  # noqa: S608 - ours
    with load_run(file) as run, pytest.raises(HistoryError, match="steps count"):
        run.steps()


def test_a_position_that_is_no_number_is_refused(file):
    change(file, "UPDATE layouts SET optimizer = 'x'")
    with load_run(file) as run, pytest.raises(HistoryError):
        run.optimizers  # noqa: B018 - it reads


def test_a_folder_whose_name_is_no_text_is_read(tmp_path, file):
    folder = tmp_path / os.fsdecode(b"\xff run")
    file.parent.rename(folder)
    with load_run(folder / file.name) as run:
        assert len(run.steps()) == 20


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_that_may_not_be_looked_into_hides_no_other(tmp_path, file):
    closed = tmp_path / "closed" / "gradguard"
    closed.mkdir(parents=True)
    (closed / "history.sqlite").touch()
    closed.chmod(0o600)
    try:
        assert find_histories(tmp_path) == [file]
    finally:
        closed.chmod(0o700)


def test_layouts_that_never_share_a_layer_are_refused_at_once(file):
    with sqlite3.connect(file) as connection:
        for i in range(1200):
            names = [f"layer.{i}.{k}" for k in range(300)]
            about = json.dumps({"layers": names, "roles": [], "is_sampled": [0] * 300})
            connection.execute("INSERT INTO layouts (optimizer, about) VALUES (0, ?)", (about,))
    began = time.process_time()
    with load_run(file) as run, pytest.raises(HistoryError, match="more than 100000 layers"):
        run.layers()
    assert time.process_time() - began < 10.0


def test_records_of_as_many_attempts_are_read_in_a_moment(file):
    with sqlite3.connect(file) as connection:
        text = connection.execute("SELECT record FROM findings").fetchone()[0]
        rows = [(attempt, text) for attempt in range(10_000)]
        connection.executemany(
            "INSERT INTO findings (attempt, optimizer, step, record) VALUES (?, 0, 3, ?)", rows
        )
        row = connection.execute("SELECT * FROM steps LIMIT 1").fetchone()[1:]
        many = [(step, *row[1:3], step, *row[4:]) for step in range(20, 20_000)]
        connection.executemany(
            "INSERT INTO steps (attempt, optimizer, layout, step, epoch, batch, flags, present, "
            "scalars, learning_rates) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            many,
        )
    began = time.process_time()
    with load_run(file) as run:
        assert len(run.findings) > 1000
    assert time.process_time() - began < 10.0


def test_a_row_of_another_size_is_not_read_for_one_layer_either(file):
    with sqlite3.connect(file) as connection:
        size = connection.execute("SELECT length(data) FROM stat_grad_norm").fetchone()[0]
        for row, bytes_ in ((3, size + 4), (5, 1 << 20)):
            connection.execute(
                "UPDATE stat_grad_norm SET data = zeroblob(?) WHERE id = ?", (bytes_, row)
            )
    with load_run(file) as run:
        norms = run.layer(run.layers()[0])["grad_norm"]
    assert np.flatnonzero(np.isnan(norms)).tolist() == [2, 4]
