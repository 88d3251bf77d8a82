"""Statistics of layers, from the rows that hold them.

In: a look at a file. Out: arrays of steps by layers, or of one layer. Sizes are checked before
memory is taken.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard.errors import HistoryError
from lightning_gradguard.history.look import MOST_STEPS, Look
from lightning_gradguard.history.opening import reading
from lightning_gradguard.history.packing import unpack_rows

__all__ = ["block", "column"]

_MOST_NUMBERS: Final = 1 << 26


def block(look: Look, name: str, optimizer_index: int, which: slice) -> npt.NDArray[np.float32]:
    """Return a stored statistic of some of the steps, ``(m, layers)``; NaN is not measured."""
    mine, layers = look.steps(optimizer_index), look.layers(optimizer_index)
    ids, layouts = mine.ids[which], mine.layouts[which]
    if len(ids) * max(1, len(layers)) > _MOST_NUMBERS:
        msg = f"{look.source.path} is too large: {len(ids)} steps of {len(layers)} layers."
        raise HistoryError(msg)
    result = np.full((len(ids), len(layers)), np.nan, dtype=np.float32)
    if not result.size:
        return result
    place = {layer: k for k, layer in enumerate(layers)}
    rows = dict(
        look.source.rows(
            f"SELECT id, data FROM stat_{name} WHERE id BETWEEN ? AND ? "  # noqa: S608 - our own names
            "AND length(data) <= ? LIMIT ?",
            int(ids[0]),
            int(ids[-1]),
            4 * len(layers),
            MOST_STEPS,
        )
    )
    with reading(look.source.path):
        for layout in np.unique(layouts).tolist():
            names = look.layouts[layout]["layers"]
            where = np.flatnonzero(layouts == layout)
            there = np.array([i for i in where.tolist() if int(ids[i]) in rows], dtype=int)
            blobs = [rows[i] for i in ids[there].tolist()]
            columns = np.array([place[layer] for layer in names], dtype=np.intp)
            result[np.ix_(there, columns)] = unpack_rows(blobs, len(names))
    return result


def column(look: Look, name: str, layer: str, optimizer_index: int) -> npt.NDArray[np.float32]:
    """Return a stored statistic of one layer, ``(n,)``, for which four bytes of a row are read."""
    mine = look.steps(optimizer_index)
    result = np.full(len(mine.ids), np.nan, dtype=np.float32)
    for layout in np.unique(mine.layouts).tolist():
        with reading(look.source.path):
            names = look.layouts[layout]["layers"]
        if layer not in names:
            continue
        ids = mine.ids[mine.layouts == layout]
        rows = look.source.rows(
            "SELECT id, CASE length(data) WHEN 4 THEN data ELSE substr(data, ?, 4) END "  # noqa: S608 - our own names
            f"FROM stat_{name} WHERE id BETWEEN ? AND ? AND length(data) IN (4, ?) LIMIT ?",
            4 * names.index(layer) + 1,
            int(ids[0]),
            int(ids[-1]),
            4 * len(names),
            MOST_STEPS,
        )
        with reading(look.source.path):
            found = np.array([row[0] for row in rows], dtype=np.int64)
            numbers = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
            _, here, there = np.intersect1d(found, ids, return_indices=True)
            result[np.flatnonzero(mine.layouts == layout)[there]] = numbers[here]
    return result
