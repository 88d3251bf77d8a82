"""A history is written where a write-ahead log is unsafe, and where there is none."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from lightning_gradguard.history import disks, load_run
from lightning_gradguard.history.storage import Entry, Storage
from lightning_gradguard.history.writer import Writer
from tests.strategies import make_frame


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Let the folders beneath a test's own be mounts; return where those are."""
    root = tmp_path.resolve()

    def mount(**kinds):
        table = tmp_path / "mounts"
        lines = [f"/dev/root / ext4 rw 0 0\n{root}/none", "short line"]
        lines += [f"server:/x {escaped(root / name)} {kind} rw 0 0" for name, kind in kinds.items()]
        table.write_bytes(os.fsencode("\n".join([*lines, ""])))
        monkeypatch.setattr(disks, "_MOUNTS", table)
        return root

    return mount


def escaped(path):
    """Write a path as Linux does in its table of mounts."""
    text = str(path).replace("\\", r"\134")
    return text.replace(" ", r"\040").replace("\t", r"\011").replace("\n", r"\012")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "9p", "lustre", "ceph", "fuse.sshfs"])
def test_a_folder_on_a_disk_of_another_machine_is_known(kind, mounted):
    here = mounted(far=kind)
    assert disks.is_on_network(here / "far")
    assert disks.is_on_network(here / "far" / "logs" / "gradguard")
    assert not disks.is_on_network(here / "near")
    assert not disks.is_on_network(here / "farther")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "overlay", "fuseblk", "nfsd"])
def test_a_disk_of_this_machine_is_one(kind, mounted):
    assert not disks.is_on_network(mounted(near=kind) / "near" / "logs")


@pytest.mark.parametrize("order", [("far", "far/near"), ("far/near", "far")])
def test_of_mounts_in_one_another_the_innermost_counts_in_whatever_order(order, mounted):
    kinds = {"far": "nfs4", "far/near": "ext4"}
    here = mounted(**{name: kinds[name] for name in order})
    assert disks.is_on_network(here / "far" / "logs")
    assert not disks.is_on_network(here / "far" / "near" / "logs")


def test_of_two_mounts_at_one_place_the_later_counts(mounted, tmp_path):
    here = mounted(a="nfs")
    table = tmp_path / "mounts"
    table.write_text(table.read_text() + f"/dev/sdb {here}/a ext4 rw 0 0\n")
    assert not disks.is_on_network(here / "a")


@pytest.mark.parametrize(
    "name",
    ["my disk", "tab\there", "line\nend", "back\\slash", r"\040", "a\u00a0b", "a\u2028b", "\udcff"],
)
def test_names_of_mounts_may_hold_anything(name, mounted):
    here = mounted(**{name: "cifs"})
    assert disks.is_on_network(here / name / "logs")
    assert not disks.is_on_network(here / "other")


def test_a_link_is_followed_to_where_it_leads(mounted, tmp_path):
    here = mounted(far="nfs")
    (here / "far").mkdir()
    (here / "link").symlink_to(here / "far")
    assert disks.is_on_network(here / "link" / "logs")


def test_where_mounts_cannot_be_known_the_disk_is_taken_for_a_local_one(monkeypatch, tmp_path):
    monkeypatch.setattr(disks, "_MOUNTS", tmp_path / "nowhere")
    assert not disks.is_on_network(tmp_path)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "far" / "gradguard" / "history.sqlite"


@pytest.fixture
def without_shared_memory(monkeypatch):
    """Let SQLite work with files alone, as where a file system has nothing better."""
    plain = sqlite3.connect

    def connect(database, **options):
        uri = str(database)
        uri = uri if uri.startswith("file:") else f"file:{quote(uri)}?mode=rwc"
        return plain(f"{uri}&vfs=unix-dotfile", **{**options, "uri": True})

    monkeypatch.setattr(sqlite3, "connect", connect)
    return plain


def journal_of(storage):
    return storage._connection.execute("PRAGMA journal_mode").fetchone()[0]


def beside(file):
    return {path.name for path in file.parent.iterdir()}


def is_read_while_it_is_written(file):
    """Write step by step, and say whether a reader saw each."""
    storage, seen = Storage(file, about={}), []
    storage.write([Entry(make_frame(0, [3.0]))])
    with load_run(file) as run:
        for step in range(1, 6):
            storage.write([Entry(make_frame(step, [3.0 + step]))])
            assert run.refresh()
            seen.append(run.statistic("grad_norm")[:, 0].tolist())
    storage.close("finished")
    with load_run(file) as run:
        assert run.meta["finished"] == "finished"
        seen.append(run.statistic("grad_norm")[:, 0].tolist())
    whole = [3.0 + step for step in range(6)]
    return seen == [whole[: step + 1] for step in range(1, 6)] + [whole]


def test_on_a_network_there_is_no_log_and_all_the_rest_is_as_ever(mounted, file):
    mounted(far="nfs4")
    storage = Storage(file, about={})
    storage.write([Entry(make_frame(0))])
    assert journal_of(storage) == "truncate"
    assert beside(file) == {"history.sqlite", "history.sqlite-journal"}
    storage.close()
    assert beside(file) == {"history.sqlite"}
    assert is_read_while_it_is_written(file.with_name("history-2.sqlite"))


def test_on_a_local_disk_there_is_a_log(mounted, file):
    mounted(far="ext4")
    storage = Storage(file, about={})
    storage.write([Entry(make_frame(0))])
    assert journal_of(storage) == "wal"
    assert "history.sqlite-wal" in beside(file)
    storage.close()
    assert beside(file) == {"history.sqlite"}


def test_a_log_that_a_killed_run_left_is_taken_over_on_a_network(mounted, file, monkeypatch):
    mounted(far="ext4")
    storage = Storage(file, about={})
    storage.write([Entry(make_frame(0))])
    kept = {path: path.read_bytes() for path in file.parent.iterdir()}
    storage.close()
    for path, content in kept.items():
        if not path.name.endswith("-shm"):
            path.write_bytes(content)
    mounted(far="nfs4")
    storage = Storage(file, about={})
    assert journal_of(storage) == "truncate"
    storage.write([Entry(make_frame(1))])
    storage.close()
    with load_run(file) as run:
        assert run.steps().tolist() == [0, 1]


@pytest.mark.skipif(os.name != "posix", reason="SQLite has this only there")
def test_where_no_log_can_be_had_it_is_written_and_read_without(without_shared_memory, file):
    storage = Storage(file, about={})
    assert storage._connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal"
    assert journal_of(storage) == "truncate"
    storage.close()
    assert is_read_while_it_is_written(file.with_name("history-2.sqlite"))


@pytest.mark.skipif(os.name != "posix", reason="SQLite has this only there")
def test_a_whole_writer_works_where_no_log_can_be_had(without_shared_memory, file):
    writer = Writer(Path(file))
    for step in range(300):
        writer.add(Entry(make_frame(step)))
    writer.close("finished")
    with load_run(file) as run:
        assert run.steps().tolist() == list(range(300))
    with closing(without_shared_memory(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
