"""What only some layers have, to bytes and back: gradients per time step, units without gradient.

In: a frame, or bytes that somebody else may have written. Out: the other. Sizes are checked first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard.history.packing import inflate, squeeze

__all__ = ["pack_parts", "unpack_parts"]

_MOST_BYTES: Final = 1 << 26
_MOST_NAMES: Final = 1 << 22
_NUMBER: Final = 4


def pack_parts(
    time_profiles: Mapping[str, npt.NDArray[np.float64]],
    silent_units: Mapping[str, npt.NDArray[np.bool_]],
) -> bytes:
    """Return both as bytes."""
    times = {k: np.asarray(v, dtype="<f8") for k, v in time_profiles.items()}
    units = {k: np.asarray(v, dtype="?") for k, v in silent_units.items()}
    sizes = {
        "time": {k: len(v) for k, v in times.items()},
        "units": {k: len(v) for k, v in units.items()},
    }
    head = json.dumps(sizes).encode()
    bodies = [v.tobytes() for v in times.values()]
    bodies += [np.packbits(v).tobytes() for v in units.values()]
    whole = b"".join([len(head).to_bytes(_NUMBER, "little"), head, *bodies])
    return len(whole).to_bytes(_NUMBER, "little") + squeeze(np.frombuffer(whole, dtype=np.uint8))


def unpack_parts(data: bytes) -> dict[str, Any]:
    """Return `pack_parts`'s arguments by name.

    Raises:
        ValueError: It was made by something else.

    Example:
        >>> data = pack_parts({"rnn": np.array([1.0, 0.5])}, {"head": np.array([True, False])})
        >>> unpack_parts(data)["time_profiles"]
        {'rnn': array([1. , 0.5])}
    """
    size = int.from_bytes(data[:_NUMBER], "little")
    if size > _MOST_BYTES:
        msg = f"a part holds at most {_MOST_BYTES} bytes, got {size}"
        raise ValueError(msg)
    whole = inflate(data[_NUMBER:], size)
    at = _NUMBER + int.from_bytes(whole[:_NUMBER], "little")
    if at > _MOST_NAMES:
        msg = f"names take at most {_MOST_NAMES} bytes, got {at}"
        raise ValueError(msg)
    sizes = json.loads(whole[_NUMBER:at])
    times, units = {}, {}
    for name, length in sizes["time"].items():
        times[str(name)] = np.frombuffer(whole, "<f8", _count(length), at).astype(np.float64)
        at += 8 * length
    for name, length in sizes["units"].items():
        packed = np.frombuffer(whole, np.uint8, (_count(length) + 7) // 8, at)
        units[str(name)] = np.unpackbits(packed, count=length).astype(np.bool_)
        at += len(packed)
    return {"time_profiles": times, "silent_units": units}


def _count(length: object) -> int:
    if not isinstance(length, int) or not 0 <= length <= _MOST_BYTES:
        msg = f"a length must be a number of entries, got {length!r}"
        raise ValueError(msg)
    return length
