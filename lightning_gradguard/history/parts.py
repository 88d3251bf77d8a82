"""What only some steps have, to bytes and back: profiles over time, units, activations.

In: arrays by kind and name, or bytes that somebody else may have written. Out: the other. Sizes are
checked first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard import schema
from lightning_gradguard.activation import Activation
from lightning_gradguard.frame import Frame
from lightning_gradguard.history.packing import from_json, inflate, squeeze

__all__ = ["kinds_of", "pack_parts", "unpack_parts"]

_MOST_BYTES: Final = 1 << 26
_MOST_HEAD: Final = 1 << 22
_NUMBER: Final = 4
_MAPPINGS: Final = ("time_profiles", "silent_units", "hidden_profiles", "output_grad_norms")
_NUMBERS: Final = ("mean", "std", "zero_fraction")
_NAMES: Final = ("function", "module", "layer")


def kinds_of(frame: Frame) -> list[str]:
    """Return what of it a frame has."""
    return [kind for kind in (*_MAPPINGS, "activations") if getattr(frame, kind)]


def pack_parts(frame: Frame) -> bytes:
    """Return what only some frames have, as bytes."""
    arrays: list[tuple[str, str, npt.NDArray[Any]]] = [
        (kind, name, np.asarray(array))
        for kind in _MAPPINGS
        for name, array in getattr(frame, kind).items()
    ]
    arrays += [part for k, one in enumerate(frame.activations) for part in _parts_of(str(k), one)]
    table, bodies = [], []
    for kind, name, array in arrays:
        is_mask = array.dtype == np.bool_
        table.append([kind, name, "b1" if is_mask else "f8", list(array.shape)])
        bodies.append((np.packbits(array) if is_mask else np.asarray(array, "<f8")).tobytes())
    names = [[getattr(one, name) for name in _NAMES] for one in frame.activations]
    head = json.dumps({"arrays": table, "activations": names}).encode()
    whole = b"".join([len(head).to_bytes(_NUMBER, "little"), head, *bodies])
    return len(whole).to_bytes(_NUMBER, "little") + squeeze(np.frombuffer(whole, dtype=np.uint8))


def _parts_of(place: str, one: Activation) -> list[tuple[str, str, npt.NDArray[Any]]]:
    numbers = np.array([getattr(one, name) for name in _NUMBERS])
    found = [("numbers", place, numbers), ("histogram", place, one.log2_histogram)]
    found += [] if one.active is None else [("active", place, one.active)]
    found += [] if one.saturated is None else [("saturated", place, one.saturated)]
    return found


def unpack_parts(data: bytes) -> dict[str, Any]:
    """Return what `Frame` takes of `pack_parts`.

    Raises:
        ValueError: It was made by something else.
    """
    size = int.from_bytes(data[:_NUMBER], "little")
    if size > _MOST_BYTES:
        msg = f"a part holds at most {_MOST_BYTES} bytes, got {size}"
        raise ValueError(msg)
    whole = inflate(data[_NUMBER:], size)
    at = _NUMBER + int.from_bytes(whole[:_NUMBER], "little")
    if at > _MOST_HEAD:
        msg = f"names take at most {_MOST_HEAD} bytes, got {at}"
        raise ValueError(msg)
    head = from_json(whole[_NUMBER:at].decode())
    found: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for kind, name, what, shape in head["arrays"]:
        count = _count(shape)
        if what == "b1":
            packed = np.frombuffer(whole, np.uint8, (count + 7) // 8, at)
            array = np.unpackbits(packed, count=count).astype(np.bool_)
            at += len(packed)
        else:
            array = np.frombuffer(whole, "<f8", count, at).astype(np.float64)
            at += 8 * count
        found.setdefault(str(kind), {})[str(name)] = array.reshape(shape)
    parts: dict[str, Any] = {kind: found[kind] for kind in _MAPPINGS if kind in found}
    if norms := parts.get("output_grad_norms"):
        parts["output_grad_norms"] = {name: float(norm) for name, norm in norms.items()}
    names = head["activations"]
    return {
        **parts,
        "activations": tuple(_activation(found, k, names[k]) for k in range(len(names))),
    }


def _activation(
    found: Mapping[str, Mapping[str, npt.NDArray[Any]]], k: int, names: list[Any]
) -> Activation:
    place = str(k)
    histogram = found["histogram"][place]
    if histogram.shape != (schema.HISTOGRAM_BINS,):
        msg = f"a histogram has {schema.HISTOGRAM_BINS} bins, got shape {histogram.shape}"
        raise ValueError(msg)
    function, module, layer = map(str, names)
    mean, std, zeros = found["numbers"][place].tolist()
    return Activation(
        function=function,
        module=module,
        layer=layer,
        mean=mean,
        std=std,
        zero_fraction=zeros,
        log2_histogram=histogram,
        active=found.get("active", {}).get(place),
        saturated=found.get("saturated", {}).get(place),
    )


def _count(shape: Any) -> int:  # noqa: ANN401 - JSON types
    is_shape = isinstance(shape, list) and len(shape) <= 2
    if not is_shape or any(not isinstance(n, int) or not 0 <= n <= _MOST_BYTES for n in shape):
        msg = f"a shape must be up to two counts, got {shape!r}"
        raise ValueError(msg)
    return math.prod(shape)
