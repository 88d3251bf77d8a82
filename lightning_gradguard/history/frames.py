"""Frames, as the detectors saw them, from what was kept of them.

In: the steps of one optimizer, and its statistics. Out: one `Frame` after the other, as near as it
was kept: in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard import schema
from lightning_gradguard.frame import Frame
from lightning_gradguard.history import tables
from lightning_gradguard.history.opening import reading
from lightning_gradguard.history.packing import inflate
from lightning_gradguard.history.parts import unpack_parts
from lightning_gradguard.history.source import Source
from lightning_gradguard.history.steps import Steps

__all__ = ["frames_of", "histogram_at"]

_MOST_HISTOGRAM_BYTES: Final = 1 << 26
_ROWS_AT_ONCE: Final = 256
_HISTOGRAM: Final = "SELECT data FROM histogram WHERE id = ? AND length(data) <= 67108864"
_PART: Final = "SELECT data FROM parts WHERE id = ? AND length(data) <= 67108864"


def frames_of(
    source: Source,
    steps: Steps,
    layouts: Mapping[int, Mapping[str, Any]],
    block: Callable[[slice], Mapping[str, npt.NDArray[np.float32]]],
    place: Mapping[str, int],
) -> Iterator[Frame]:
    """Yield one frame per step.

    Args:
        source: Holds what only some steps have.
        steps: Those of one optimizer.
        layouts: What is known of the layers of a step, by its layout.
        block: Returns the statistics of some of them by name, ``(m, layers)``.
        place: The column of each layer in them.
    """
    with_histogram = {int(row[0]) for row in source.rows("SELECT id FROM histogram LIMIT 2000000")}
    with_parts = {int(row[0]) for row in source.rows("SELECT id FROM parts LIMIT 2000000")}
    statistics: Mapping[str, npt.NDArray[np.float32]] = {}
    for k, i in enumerate(steps.ids.tolist()):
        here = k % _ROWS_AT_ONCE
        if here == 0:
            statistics = block(slice(k, k + _ROWS_AT_ONCE))
        with reading(source.path):
            about = layouts[int(steps.layouts[k])]
            columns = [place[layer] for layer in about["layers"]]
            counts = histogram_at(source, i, len(columns)) if i in with_histogram else None
            parts = source.rows(_PART, i) if i in with_parts else []
            vectors: dict[str, Any] = {
                name: numbers[here, columns].astype(np.float64)
                for name, numbers in statistics.items()
            }
            frame = Frame(
                **_place_of(steps, k),
                optimizer_index=about["optimizer"],
                layers=about["layers"],
                roles=tuple(about["roles"]),
                is_sampled=np.array(about["is_sampled"], dtype=np.bool_),
                log2_histogram=None if counts is None else counts.astype(np.float64),
                **vectors,
                **(unpack_parts(parts[0][0]) if parts else {}),
                **_scalars_of(steps, k),
            )
        yield frame


def histogram_at(source: Source, i: int, layers: int) -> npt.NDArray[np.float32] | None:
    """Return the histograms of a step, ``(layers, HISTOGRAM_BINS)``.

    None where they were thinned in this moment.
    """
    data = source.rows(_HISTOGRAM, i)
    if not data:
        return None
    size = 4 * layers * schema.HISTOGRAM_BINS
    with reading(source.path):
        if size > _MOST_HISTOGRAM_BYTES:
            msg = f"histograms of {layers} layers at a step are more than can be read"
            raise ValueError(msg)
        body = inflate(data[0][0], size)
        return np.frombuffer(body, dtype="<f4").reshape(layers, schema.HISTOGRAM_BINS)


def _place_of(steps: Steps, k: int) -> dict[str, Any]:
    flags = int(steps.flags[k])
    return {
        "step": int(steps.steps[k]),
        "epoch": int(steps.epochs[k]),
        "batch_idx": int(steps.batches[k]),
        "learning_rates": tuple(np.frombuffer(steps.rates[k], dtype="<f8").tolist()),
        "stepped": bool(flags & 1),
        "has_scaler": bool(flags & 2),
        "batch_is_finite": (None, False, True)[flags >> 2 & 3],
    }


def _scalars_of(steps: Steps, k: int) -> dict[str, Any]:
    """Return what a `Frame` takes, of the numbers of a step."""
    present = int(steps.present[k])
    named = zip(tables.SCALARS, steps.scalars[k].tolist(), strict=True)
    return _fields(
        {n: float(v) if present >> bit & 1 else None for bit, (n, v) in enumerate(named)}
    )


def _fields(numbers: Mapping[str, float | None]) -> dict[str, Any]:
    """Return what a `Frame` takes as it is, of the numbers of a step."""
    plain = (
        "loss",
        "global_grad_norm_at_update",
        "first_batch_grad_norm",
        "clipped_fraction",
        "guard_clip_coefficient",
    )
    known: dict[str, Any] = {name: numbers[name] for name in plain}
    for name in ("accumulated_batches", "world_size"):
        known[name] = int(numbers[name] or 1)
    known["window_correction"] = numbers["window_correction"] or 1.0
    factor, norm = numbers["lr_factor"], numbers["global_grad_norm"]
    known["lr_factor"] = 1.0 if factor is None else factor
    known["global_grad_norm"] = float("nan") if norm is None else norm
    return known
