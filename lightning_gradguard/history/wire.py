"""Numbers as a browser takes them.

In: JSON-like values and arrays. Out: strict JSON types, and bytes that `static/decode.js` undoes.
Imports only numpy and the standard library.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["pack", "plain", "unpack"]


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever a run holds
    """Return a value as JSON types; NaN becomes None and infinities their names.

    Example:
        >>> plain({"a": (float("inf"), float("nan"), 1)})
        {'a': ['Infinity', None, 1]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (bool, int, str, type(None))):
        return value
    if isinstance(value, (float, np.floating)):
        return _number(float(value))
    return int(value) if isinstance(value, np.integer) else str(value)


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isfinite(value):
        return value
    return "-Infinity" if value < 0.0 else "Infinity"


def pack(header: Mapping[str, Any], **arrays: npt.NDArray[Any]) -> bytes:
    """Join a JSON header and arrays: length of the header, header, arrays at multiples of 8 bytes.

    Example:
        >>> unpack(pack({"a": 1}, x=np.arange(2.0)))
        ({'a': 1}, {'x': array([0., 1.])})
    """
    little = {k: np.ascontiguousarray(a, a.dtype.newbyteorder("<")) for k, a in arrays.items()}
    table = [[name, a.dtype.str[1:], list(a.shape)] for name, a in little.items()]
    head = json.dumps({**header, "arrays": table}, allow_nan=False).encode()
    head += b" " * (-(len(head) + 4) % 8)
    parts = [struct.pack("<I", len(head)), head]
    for array in little.values():
        body = array.tobytes()
        parts += [body, bytes(-len(body) % 8)]
    return b"".join(parts)


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Undo `pack`."""
    (length,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + length])
    place, arrays = 4 + length, {}
    for name, kind, shape in header.pop("arrays"):
        count = math.prod(shape)
        array = np.frombuffer(data, f"<{kind}", count, place)
        arrays[name] = array.reshape(shape)
        place += array.nbytes + -array.nbytes % 8
    return header, arrays
