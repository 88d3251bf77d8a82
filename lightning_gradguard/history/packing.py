"""Numbers to bytes and back.

In: arrays, or bytes that somebody else may have written. Out: the other. A size is checked before
memory is taken for it, and nothing is ever unpickled.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["as_float32", "from_json", "inflate", "pack_rows", "squeeze", "unpack_rows"]

_TINIEST: Final = np.float32(1e-45)
_DEEPEST: Final = 32


def as_float32(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Round to float32; what is not zero stays so, and what is finite stays so.

    Example:
        >>> as_float32(np.array([0.0, 1e-60, -1e300, np.inf])).tolist()
        [0.0, 1.401298464324817e-45, -3.4028234663852886e+38, inf]
    """
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        rounded = values.astype("<f4")
    lost = (rounded == 0.0) & (values != 0.0)
    rounded[lost] = np.copysign(_TINIEST, values[lost])
    grown = np.isinf(rounded) & np.isfinite(values)
    rounded[grown] = np.copysign(np.finfo(np.float32).max, values[grown])
    return rounded


def pack_rows(rows: Sequence[npt.NDArray[np.float64]]) -> list[bytes]:
    """Return one blob per row; a row of one number only is kept as that number.

    Args:
        rows: Vectors of one length each.
    """
    matrix = as_float32(np.asarray(rows))
    bits = matrix.view("<u4")
    if matrix.shape[1] == 0:
        return [b""] * len(matrix)
    is_constant = (bits == bits[:, :1]).all(axis=1).tolist()
    return [
        row[:1].tobytes() if same else row.tobytes()
        for row, same in zip(matrix, is_constant, strict=True)
    ]


def unpack_rows(blobs: Sequence[bytes], width: int) -> npt.NDArray[np.float32]:
    """Return `pack_rows`'s matrix, shape ``(rows, width)``.

    Raises:
        ValueError: A blob is neither one number nor ``width`` of them.
    """
    full = 4 * width
    if width and any(len(blob) not in {4, full} for blob in blobs):
        msg = f"a row holds {width} numbers, got one of another size"
        raise ValueError(msg)
    data = b"".join(blob if len(blob) == full else blob * width for blob in blobs)
    return np.frombuffer(data, dtype="<f4").reshape(len(blobs), width).astype(np.float32)


def squeeze(array: npt.NDArray[Any]) -> bytes:
    """Compress numbers that are mostly zero."""
    return zlib.compress(array.tobytes(), 1)


def inflate(data: bytes, size: int) -> bytes:
    """Undo `squeeze`; takes no more memory than ``size`` bytes.

    Raises:
        ValueError: It is not ``size`` bytes.
    """
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, size + 1)
    except zlib.error as error:
        msg = f"compressed numbers cannot be read: {error}"
        raise ValueError(msg) from error
    if len(found) != size:
        msg = f"{size} bytes of numbers are expected, got another size"
        raise ValueError(msg)
    return found


def from_json(text: str) -> Any:  # noqa: ANN401 - JSON types
    """Return what a JSON text holds, if it is not so deep that walking through it would fail.

    Raises:
        ValueError: It is no JSON, or too deep.

    Example:
        >>> from_json('{"a": [1, NaN]}')
        {'a': [1, nan]}
    """
    found = json.loads(text)
    level, deepest = [found], 0
    while level := [
        inner
        for one in level
        if isinstance(one, (list, dict))
        for inner in (one.values() if isinstance(one, dict) else one)
    ]:
        deepest += 1
        if deepest > _DEEPEST:
            msg = f"JSON is at most {_DEEPEST} levels deep here"
            raise ValueError(msg)
    return found
