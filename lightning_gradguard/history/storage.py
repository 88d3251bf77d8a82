"""Records into the file: the one place that writes to it.

In: what sinks are told, as plain records, in batches. Out: committed rows. Used from one thread
only; knows neither queues nor training.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from lightning_gradguard.audit import Action
from lightning_gradguard.errors import HistoryError
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.history import disks, shrinking, tables
from lightning_gradguard.history.held import hold, let_go
from lightning_gradguard.history.packing import as_float32, pack_rows, squeeze
from lightning_gradguard.history.parts import kinds_of, pack_parts
from lightning_gradguard.history.thinning import most_steps

__all__ = ["Entry", "Storage"]

_TRIES: Final = 40
_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True, eq=False)
class Entry:
    """A frame, and the numbers that are known of the run after it."""

    frame: Frame
    numbers: Mapping[str, float] = field(default_factory=dict)


class Storage:
    """Add one attempt to a history file, new or continued.

    Args:
        path: The file; its folder is made.
        about: What is known of the attempt, as JSON types.
        meta: What is known of the run, as JSON types.

    Raises:
        HistoryError: There is a file that is not ours or newer.
        OSError, sqlite3.Error: The disk does not let us.
    """

    def __init__(
        self, path: Path, *, about: Mapping[str, Any], meta: Mapping[str, Any] | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
        try:
            self._prepare(path)
            self._held = hold(path)
            self._about = {"started": time.time(), "finished": None, **about}
            self._layouts = self._known_layouts()
            # What earlier attempts left is looked at with the first record.
            soon = shrinking.MOST_RECORDS // 16
            self._since_trimmed = Counter({"findings": soon, "actions": soon})
            self.skipped = 0
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._attempt = self._insert("attempts", "about", (_json(self._about),))
                self._set_meta({**(meta or {}), "finished": None})
            self._last_id = 0
            self._counts = self._count_steps()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, path: Path) -> None:
        """Make the tables, or see that they are ours; another process may do the same just now."""
        run = self._connection.execute
        run("PRAGMA trusted_schema = OFF")
        run("PRAGMA cell_size_check = ON")
        run(f"PRAGMA page_size = {tables.PAGE_BYTES}")
        with self._connection:
            run("BEGIN IMMEDIATE")
            if run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._check(path)
            else:
                for text in tables.TABLES.values():
                    run(text)
                run(f"PRAGMA application_id = {tables.APPLICATION_ID}")
                run(f"PRAGMA user_version = {tables.USER_VERSION}")
                self._set_meta({"schema": tables.SCHEMA_NAME, "created": time.time()})
        if disks.is_on_network(path.parent) or self._journal("WAL") != "wal":
            self._journal("TRUNCATE")
        run("PRAGMA synchronous = NORMAL")

    def _journal(self, mode: str) -> str:
        """Choose how changes are kept; SQLite itself does not wait where another does so now."""
        for _ in range(_TRIES):
            try:
                return str(self._connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0])
            except sqlite3.OperationalError:
                time.sleep(_PAUSE_SECONDS)
        return str(self._connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0])

    def _check(self, path: Path) -> None:
        run = self._connection.execute
        found = dict(run("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
        if run("PRAGMA application_id").fetchone()[0] != tables.APPLICATION_ID:
            msg = f"{path} is not a history of gradguard, so none is written. Move it away."
            raise HistoryError(msg)
        if run("PRAGMA user_version").fetchone()[0] != tables.USER_VERSION or (
            found != tables.TABLES
        ):
            msg = f"{path} is of another version of gradguard, so none is written. Move it away."
            raise HistoryError(msg)

    def _count_steps(self) -> Counter[int]:
        text = "SELECT optimizer, count(*) FROM steps GROUP BY optimizer"
        return Counter(dict(self._connection.execute(text).fetchall()))

    def _insert(self, table: str, columns: str, values: tuple[Any, ...]) -> int:
        marks = ", ".join("?" * len(values))
        text = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 - our own names
        return int(self._connection.execute(text, values).lastrowid or 0)

    def _set_meta(self, values: Mapping[str, Any]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [(key, _json(value)) for key, value in values.items()],
        )

    def write(self, batch: Sequence[Entry | Finding | Action]) -> None:
        """Commit a batch: all of it or nothing, so that it may be given again.

        Raises:
            HistoryError: The file is no longer there.
            sqlite3.OperationalError: Somebody else holds the file, or the disk is full.
        """
        self._see_that_it_is_there()
        before = dict(self._about), self.skipped, Counter(self._since_trimmed)
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                # Another process may have added to the file.
                row = self._connection.execute("SELECT coalesce(max(id), 0) FROM steps").fetchone()
                self._last_id = int(row[0])
                self._write_batch(batch)
        except BaseException:
            # What was undone in the file is undone here, too.
            self._about, self.skipped, self._since_trimmed = before
            self._layouts.clear()
            with suppress(sqlite3.Error):
                self._layouts, self._counts = self._known_layouts(), self._count_steps()
            raise

    def _see_that_it_is_there(self) -> None:
        """SQLite goes on to write into a file that was deleted, which nobody could read."""
        try:
            status = self._path.stat()
        except OSError as error:
            msg = f"{self._path} cannot be found any more: {error}"
            raise HistoryError(msg) from error
        if (status.st_dev, status.st_ino) != self._held[1:]:
            msg = f"{self._path} was replaced by another file."
            raise HistoryError(msg)

    def _write_batch(self, batch: Sequence[Entry | Finding | Action]) -> None:
        entries = [record for record in batch if isinstance(record, Entry)]
        self._write_records([record for record in batch if not isinstance(record, Entry)])
        start = 0
        for end in range(1, len(entries) + 1):
            if end == len(entries) or (
                len(entries[end].frame.layers) != len(entries[start].frame.layers)
            ):
                self._write_entries(entries[start:end])
                start = end
        for frame in {entry.frame.optimizer_index: entry.frame for entry in entries}.values():
            most = most_steps(len(frame.layers), len(tables.STATISTICS))
            index = frame.optimizer_index
            if self._counts[index] > most:
                gone = shrinking.thin_steps(self._connection, index)
                self._counts[index] -= gone["steps"]
                self._note(gone)

    def _write_records(self, records: Sequence[Finding | Action]) -> None:
        """Write what anybody's detector or remedy said; what is no record is left out."""
        for record in records:
            table = "findings" if isinstance(record, Finding) else "actions"
            try:
                where = (self._attempt, int(record.optimizer_index), int(record.step))
                text = _json(record.to_dict())
            except (TypeError, ValueError, AttributeError, RecursionError, OverflowError):
                self.skipped += 1
                continue
            if isinstance(record, Finding):
                self._insert(table, "attempt, optimizer, step, record", (*where, text))
            else:
                columns = "attempt, optimizer, step, what, record"
                self._insert(table, columns, (*where, str(record.what), text))
            self._since_trimmed[table] += 1
        for table, count in self._since_trimmed.items():
            if count >= shrinking.MOST_RECORDS // 16:
                self._since_trimmed[table] = 0
                self._note(shrinking.trim_records(self._connection, table))

    def _note(self, gone: Counter[str]) -> None:
        """Keep count of what is no longer there."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'thinned'").fetchone()
        before = json.loads(row[0]) if row else {}
        if gone:
            self._set_meta({"thinned": Counter(before) + gone})

    def _write_entries(self, entries: Sequence[Entry]) -> None:
        """Write steps with the same number of layers."""
        many = self._connection.executemany
        if "from_step" not in self._about:
            self._about["from_step"] = entries[0].frame.step
            about = (_json(self._about), self._attempt)
            self._connection.execute("UPDATE attempts SET about = ? WHERE id = ?", about)
        ids = range(self._last_id + 1, self._last_id + 1 + len(entries))
        self._last_id += len(entries)
        self._counts.update(entry.frame.optimizer_index for entry in entries)
        rows = [self._row(i, entry) for i, entry in zip(ids, entries, strict=True)]
        many(f"INSERT INTO steps VALUES ({', '.join('?' * 11)})", rows)  # noqa: S608 - our own names
        for name in tables.STATISTICS:
            blobs = pack_rows([getattr(entry.frame, name) for entry in entries])
            many(f"INSERT INTO stat_{name} VALUES (?, ?)", zip(ids, blobs, strict=True))  # noqa: S608 - our own names
        for i, entry in zip(ids, entries, strict=True):
            self._write_parts(i, entry.frame)

    def _row(self, i: int, entry: Entry) -> tuple[Any, ...]:
        frame = entry.frame
        numbers = {**entry.numbers}
        numbers["learning_rate"] = frame.learning_rates[0] if frame.learning_rates else math.nan
        values = [numbers.get(n, getattr(frame, n, None)) for n in tables.SCALARS]
        present = sum(1 << k for k, value in enumerate(values) if value is not None)
        known = np.array([math.nan if v is None else v for v in values], dtype="<f8")
        finite = {None: 0, False: 1, True: 2}[frame.batch_is_finite]
        flags = int(frame.stepped) | int(frame.has_scaler) << 1 | finite << 2
        rates = np.array(frame.learning_rates, dtype="<f8")
        where = (self._attempt, frame.optimizer_index, self._layout(frame), frame.step)
        at = (frame.epoch, frame.batch_idx, flags, present)
        return (i, *where, *at, known.tobytes(), rates.tobytes())

    def _known_layouts(self) -> dict[tuple[Any, ...], int]:
        """Return what is in the file: each attempt has the same layers, as a rule."""
        found = {}
        for i, optimizer, text in self._connection.execute("SELECT * FROM layouts"):
            about = json.loads(text)
            names, roles = tuple(about["layers"]), tuple(about["roles"])
            sampled = np.array(about["is_sampled"], dtype=np.bool_).tobytes()
            found[optimizer, names, roles, sampled] = i
        return found

    def _layout(self, frame: Frame) -> int:
        key = (frame.optimizer_index, frame.layers, frame.roles, frame.is_sampled.tobytes())
        if key not in self._layouts:
            about = {
                "layers": frame.layers,
                "roles": frame.roles,
                "is_sampled": [int(sampled) for sampled in frame.is_sampled],
            }
            values = (frame.optimizer_index, _json(about))
            self._layouts[key] = self._insert("layouts", "optimizer, about", values)
        return self._layouts[key]

    def _write_parts(self, i: int, frame: Frame) -> None:
        if frame.log2_histogram is not None:
            data = squeeze(as_float32(frame.log2_histogram))
            self._connection.execute("INSERT INTO histogram VALUES (?, ?)", (i, data))
        if kinds := kinds_of(frame):
            values = (i, " ".join(kinds), pack_parts(frame))
            self._connection.execute("INSERT INTO parts VALUES (?, ?, ?)", values)

    def close(self, finished: str | None = None, **meta: Any) -> None:  # noqa: ANN401 - JSON types
        """Say how the attempt ended, and leave one file that needs no other."""
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._about["finished"] = finished
                about = (_json(self._about), self._attempt)
                self._connection.execute("UPDATE attempts SET about = ? WHERE id = ?", about)
                if self.skipped:
                    meta["skipped_records"] = self.skipped
                self._set_meta({**meta, "finished": finished})
            # Where somebody reads, the log beside the file stays.
            with suppress(sqlite3.OperationalError):
                self._connection.execute("PRAGMA journal_mode = DELETE")
        finally:
            self._connection.close()
            let_go(self._held)


def _json(value: object) -> str:
    """Return JSON, in which numbers of numpy are plain ones."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:  # noqa: ANN401 - what a detector of anybody's may hold
    return value.item() if isinstance(value, np.generic) else str(value)
