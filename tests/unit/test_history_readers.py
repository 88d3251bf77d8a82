"""Whoever reads a history can neither change it nor be led by it to anything else."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing, contextmanager

import pytest

from lightning_gradguard.history import HistoryError, load_run, opening
from lightning_gradguard.history.storage import Entry, Storage
from tests.strategies import make_frame


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gradguard" / "history.sqlite"
    storage = Storage(path, about={})
    storage.write([Entry(make_frame(step)) for step in range(3)])
    storage.close("finished")
    return path


@contextmanager
def as_it_is(file):
    with load_run(file) as run:
        yield run._source._connection


@contextmanager
def mended(file):
    """Read a copy, in which SQLite itself may write, as after a kill."""
    connection, folder = opening._mended(file)
    with folder, closing(connection):
        yield connection


WAYS = pytest.mark.parametrize("opened", [as_it_is, mended])


@WAYS
def test_a_reader_believes_no_schema_and_writes_nothing(opened, file):
    with opened(file) as connection:
        wanted = {"query_only": 1, "trusted_schema": 0, "cell_size_check": 1, "mmap_size": 0}
        found = {name: connection.execute(f"PRAGMA {name}").fetchone() for name in wanted}
        # Where SQLite maps no memory at all, it has no answer to the last.
        assert {name: value[0] if value else 0 for name, value in found.items()} == wanted


@WAYS
@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM steps",
        "INSERT INTO meta VALUES ('x', '1')",
        "UPDATE layouts SET optimizer = 1",
        "DROP TABLE findings",
        "CREATE TABLE more (x)",
        "CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM steps; END",
        "PRAGMA user_version = 7",
        "VACUUM",
    ],
)
def test_a_reader_that_is_asked_to_write_refuses(text, opened, file):
    before = file.read_bytes()
    with opened(file) as connection:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute(text)
        assert connection.execute("SELECT count(*) FROM steps").fetchone() == (3,)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert file.read_bytes() == before


def change(file, *texts):
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for text in texts:
            connection.execute(text)


@WAYS
@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE more (x)",
        "CREATE VIEW v AS SELECT load_extension('x')",
        "CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM steps; END",
        "CREATE INDEX i ON steps (step)",
        "ANALYZE",
        "ALTER TABLE steps ADD COLUMN more",
        "ALTER TABLE findings RENAME TO finding",
    ],
)
def test_a_file_with_more_than_our_tables_is_refused_in_either_way(text, opened, file):
    change(file, text)
    with pytest.raises(HistoryError, match="not a history of gradguard"), opened(file):
        pass


def test_a_view_in_the_place_of_a_table_is_refused(file):
    change(
        file,
        "ALTER TABLE meta RENAME TO old",
        "CREATE VIEW meta AS SELECT * FROM old",
    )
    with pytest.raises(HistoryError, match="not a history of gradguard"):
        load_run(file)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="older Pythons have no limits")
@WAYS
def test_a_reader_takes_no_value_larger_than_the_limit(opened, file, monkeypatch):
    with opened(file) as connection:
        limit = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
    assert limit == opening.MOST_BYTES
    change(file, "UPDATE meta SET value = '\"' || hex(zeroblob(50000)) || '\"'")
    with load_run(file) as run:
        assert len(run.meta["schema"]) == 100_000
    monkeypatch.setattr(opening, "MOST_BYTES", 90_000)
    with load_run(file) as run, pytest.raises(HistoryError, match="too big"):
        run.meta  # noqa: B018 - it reads
