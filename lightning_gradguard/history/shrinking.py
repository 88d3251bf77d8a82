"""Old rows out of the file, so that it never grows without end.

In: the connection of the one writer, in a transaction. Out: fewer rows. Which steps go, `thinning`
says.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard.history import tables
from lightning_gradguard.history.layouts import merged
from lightning_gradguard.history.packing import unpack_rows
from lightning_gradguard.history.steps import latest_rows
from lightning_gradguard.history.thinning import (
    ACTED,
    BUCKET,
    FOUND,
    densest,
    kept_steps,
)

__all__ = ["MOST_RECORDS", "thin_steps", "trim_records"]

MOST_RECORDS: Final = 20_000
"""Findings that a file holds, and other actions than those that go with their steps."""
_MOST_BYTES: Final = 1 << 25
_FIRST_ONES: Final = 1000
"""Of findings and actions the first stay, which tell since when."""
_NUMBERS_AT_ONCE: Final = 1 << 21
_WITH_STEPS: Final = ("steps", "histogram", "parts", *(f"stat_{n}" for n in tables.STATISTICS))
_EVERY_STEP: Final = "('clip', 'skip')"
"""Actions that may come at every step, and go with it."""


def thin_steps(connection: sqlite3.Connection, optimizer: int) -> Counter[str]:
    """Thin the older half of an optimizer's steps where they are densest; return what went.

    Cost:
        About a quarter of a second for 50,000 steps of 20 layers, in which an eighth of them goes.
    """
    text = "SELECT id, step, layout, attempt FROM steps WHERE optimizer = ? ORDER BY id"
    rows = np.array(connection.execute(text, (optimizer,)).fetchall(), dtype=np.int64)
    is_latest, older = latest_rows(rows[:, 1], rows[:, 3]), len(rows) // 2
    ids, steps, layouts = rows[:older, :3].T
    kept, known = is_latest[:older].copy(), np.flatnonzero(is_latest[:older])
    weights, names = _weights(connection, optimizer, steps), _names(connection)
    widest = max(1, *(len(names[i]) for i in set(layouts.tolist())))
    chosen = known[densest(steps[known])]
    at_once = max(1, _NUMBERS_AT_ONCE // (BUCKET * widest))
    for first in range(0, len(chosen), at_once):
        part = chosen[first : first + at_once].reshape(-1)
        numbers = _numbers(connection, ids[part], [names[i] for i in layouts[part].tolist()])
        kept[part] = kept_steps(*numbers, weights[part])
    _delete(connection, _WITH_STEPS, ids[~kept])
    # A step that was made again is still there, in the half that is left alone.
    lost = np.setdiff1d(steps[~kept], [*steps[kept], *rows[older:, 1]])
    acts = _at_every_step(connection, optimizer, lost)
    _delete(connection, ("actions",), np.array([i for i, _ in acts], dtype=np.int64))
    return Counter({"steps": int(np.count_nonzero(~kept))}) + Counter(what for _, what in acts)


def _names(connection: sqlite3.Connection) -> dict[int, tuple[str, ...]]:
    """Return the layers of each layout."""
    found = connection.execute("SELECT id, about FROM layouts").fetchall()
    return {i: tuple(json.loads(about)["layers"]) for i, about in found}


def _numbers(
    connection: sqlite3.Connection, ids: npt.NDArray[np.int64], names: list[tuple[str, ...]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Return global norms, layers' norms and losses of some steps."""
    _choose(connection, ids)
    rows = connection.execute(
        "SELECT s.present, s.scalars, g.data, n.data FROM steps s "
        "JOIN stat_grad_norm g ON g.id = s.id JOIN stat_num_nonfinite n ON n.id = s.id "
        "WHERE s.id IN (SELECT id FROM chosen) ORDER BY s.id"
    )
    present, numbers, norms, broken = zip(*rows, strict=True)
    scalars = np.frombuffer(b"".join(numbers), dtype="<f8").reshape(len(ids), -1)
    layers = _by_layer(names, norms)
    layers[_by_layer(names, broken) > 0] = np.inf
    norm, loss = (scalars[:, tables.SCALARS.index(n)] for n in ("global_grad_norm", "loss"))
    is_measured = np.array(present) >> tables.SCALARS.index("loss") & 1 == 1
    return norm, layers, np.where(np.isnan(loss) & is_measured, np.inf, loss)


def _by_layer(names: list[tuple[str, ...]], blobs: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """Return one column for each layer that any of the steps has."""
    place = {layer: k for k, layer in enumerate(merged(dict.fromkeys(names)))}
    result = np.full((len(names), len(place)), np.nan, dtype=np.float32)
    for mine in dict.fromkeys(names):
        rows = [k for k, own in enumerate(names) if own is mine or own == mine]
        columns = [place[layer] for layer in mine]
        result[np.ix_(rows, columns)] = unpack_rows([blobs[k] for k in rows], len(mine))
    return result


def _weights(
    connection: sqlite3.Connection, optimizer: int, steps: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return how much each step matters for what was said of it, see `kept_steps`."""
    text = "SELECT step FROM findings WHERE optimizer = ?"
    found = [step for (step,) in connection.execute(text, (optimizer,))]
    text = "SELECT step, what FROM actions WHERE optimizer = ? ORDER BY id"
    acts = list(_first_ones(connection.execute(text, (optimizer,))))
    weights = FOUND * np.isin(steps, found) + ACTED * np.isin(steps, acts)
    weights[:1] += FOUND  # where a run began says how far it has come
    return weights


def _first_ones(acts: sqlite3.Cursor) -> Iterator[int]:
    """Yield the steps at which actions begin, of those that come at one step after the other."""
    last: dict[str, int] = {}
    for step, what in acts:
        if what not in last or step not in {last[what], last[what] + 1}:
            yield step
        last[what] = step


def _at_every_step(
    connection: sqlite3.Connection, optimizer: int, lost: npt.NDArray[np.int64]
) -> list[tuple[int, str]]:
    """Return row and kind of the actions that go with their steps."""
    text = f"SELECT id, what, step FROM actions WHERE optimizer = ? AND what IN {_EVERY_STEP}"  # noqa: S608 - our own names
    gone = set(lost.tolist())
    return [(i, what) for i, what, step in connection.execute(text, (optimizer,)) if step in gone]


def trim_records(connection: sqlite3.Connection, table: str) -> Counter[str]:
    """Let findings or actions go where there are too many; return how many of what went.

    The first thousand stay, and the latest quarter; of the others those go first that come at
    every step.
    """
    what = "what" if table == "actions" else "'findings'"
    rows = connection.execute(
        f"SELECT id, length(record), {what}, {what} IN {_EVERY_STEP} FROM {table} ORDER BY id"  # noqa: S608 - our own names
    ).fetchall()
    sizes = np.array([row[1] for row in rows], dtype=np.int64)
    over_rows, over_bytes = len(rows) - MOST_RECORDS, int(sizes.sum()) - _MOST_BYTES
    if over_rows <= 0 and over_bytes <= 0:
        return Counter()
    middle = range(min(_FIRST_ONES, len(rows) // 8), len(rows) - len(rows) // 4)
    order = sorted(middle, key=lambda k: not rows[k][3])
    # A sixteenth more, so that it is not done again at once.
    by_bytes = np.searchsorted(sizes[order].cumsum(), over_bytes + _MOST_BYTES // 16)
    gone = order[: max(over_rows + MOST_RECORDS // 16, int(by_bytes) + 1)]
    _delete(connection, (table,), np.array([rows[k][0] for k in gone], dtype=np.int64))
    return Counter(rows[k][2] for k in gone)


def _delete(
    connection: sqlite3.Connection, names: tuple[str, ...], ids: npt.NDArray[np.int64]
) -> None:
    _choose(connection, ids)
    for table in names:
        connection.execute(f"DELETE FROM {table} WHERE id IN (SELECT id FROM chosen)")  # noqa: S608 - our own names


def _choose(connection: sqlite3.Connection, ids: npt.NDArray[np.int64]) -> None:
    """Put rows into a table of this connection alone, for the statement that follows."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS chosen (id INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM chosen")
    connection.executemany("INSERT INTO chosen VALUES (?)", ((i,) for i in ids.tolist()))
