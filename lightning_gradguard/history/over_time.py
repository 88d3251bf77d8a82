"""Gradients over the time steps of recurrent layers, as a run wrote them down.

In: a look at a file. Out: for each layer, what was kept of its input and of its states, by training
step and time step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_gradguard.history.look import Look
from lightning_gradguard.history.opening import reading
from lightning_gradguard.history.parts import unpack_parts

__all__ = ["TimeProfile", "time_profiles"]

_MOST: Final = 600
_MOST_BYTES: Final = 1 << 26


class TimeProfile(NamedTuple):
    """Gradient norms of one layer, over training and over time.

    Attributes:
        what: ``"input"``, ``"state"`` with its run, such as ``"state l0"``, or ``"state l0, late
            loss"`` for what the loss of the last part of the sequence alone leads to.
        steps: Training steps at which it was looked at, ``(m,)``.
        times: Time steps, ``(k,)``.
        norms: ``(m, k)``; NaN is not measured.
    """

    what: str
    steps: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    norms: npt.NDArray[np.float64]


def time_profiles(look: Look, optimizer_index: int) -> dict[str, list[TimeProfile]]:
    """Return what is known by layer, at up to 600 steps, evenly spread.

    Of sequences of several lengths, those of the commonest are returned.
    """
    mine = look.steps(optimizer_index)
    text = "SELECT id FROM parts WHERE kinds LIKE '%time_profiles%' OR kinds LIKE '%hidden%'"
    known = np.array([int(row[0]) for row in look.source.rows(text)], dtype=np.int64)
    _, places, _ = np.intersect1d(mine.ids, known, return_indices=True)
    found: dict[tuple[str, str], list[_Sample]] = {}
    for place in places[:: max(1, -(-len(places) // _MOST))].tolist():
        text = "SELECT data FROM parts WHERE id = ? AND length(data) <= ?"
        for (data,) in look.source.rows(text, int(mine.ids[place]), _MOST_BYTES):
            with reading(look.source.path):
                for layer, what, times, norms in _of(unpack_parts(data)):
                    sample = _Sample(int(mine.steps[place]), times, norms)
                    found.setdefault((layer, what), []).append(sample)
    profiles: dict[str, list[TimeProfile]] = {}
    for (layer, what), samples in found.items():
        profiles.setdefault(layer, []).append(_joined(what, samples))
    return profiles


class _Sample(NamedTuple):
    """One training step."""

    step: int
    times: npt.NDArray[np.float64]
    norms: npt.NDArray[np.float64]


def _of(
    parts: dict[str, dict[str, npt.NDArray[np.float64]]],
) -> Iterator[tuple[str, str, npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Yield layer, what, time steps and norms, of one training step."""
    for layer, norms in parts.get("time_profiles", {}).items():
        yield layer, "input", np.arange(len(norms), dtype=np.float64), norms
    for name, (times, whole, late) in parts.get("hidden_profiles", {}).items():
        layer, _, run = name.rpartition("/")
        order = np.argsort(times)
        yield layer, f"state {run}", times[order], whole[order]
        if np.isfinite(late).any():
            yield layer, f"state {run}, late loss", times[order], late[order]


def _joined(what: str, samples: list[_Sample]) -> TimeProfile:
    """Join those of the commonest length, and of several such, the longest."""
    lengths = [len(sample.norms) for sample in samples]
    length = max(lengths, key=lambda n: (lengths.count(n), n))
    kept = [sample for sample in samples if len(sample.norms) == length]
    steps = np.array([sample.step for sample in kept], dtype=np.int64)
    return TimeProfile(what, steps, kept[-1].times, np.array([one.norms for one in kept]))
