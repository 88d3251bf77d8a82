"""Write steps until killed; print each that is committed. Run as a program by a test."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame
from lightning_gradguard.history import disks, storage
from lightning_gradguard.history.storage import Entry
from lightning_gradguard.history.tables import STATISTICS
from lightning_gradguard.history.writer import Writer

LAYERS = 30


def value(step: int) -> np.ndarray:
    """Return what the writer gives all statistics of a step."""
    return step + np.arange(LAYERS, dtype=np.float64) / 64.0


def frame(step: int) -> Frame:
    """Return a step whose numbers tell which it is."""
    vectors = {name: value(step) for name in STATISTICS}
    return Frame(
        step=step,
        layers=tuple(f"layers.{i}" for i in range(LAYERS)),
        is_sampled=np.zeros(LAYERS, dtype=bool),
        global_grad_norm=float(step),
        **vectors,  # type: ignore[arg-type]
    )


def main(path: str, first: int, mode: str) -> None:
    """Write from a step on, as one attempt: with or without a log, or thinning all the time."""
    if mode == "without-wal":
        disks.is_on_network = lambda _folder: True
    if mode == "thinning":
        storage.most_steps = lambda *_: 64
    writer = Writer(Path(path))
    for step in itertools.count(first):
        writer.add(Entry(frame(step)))
        if step % 7 == 0:
            writer.add(Finding(kind="spike", severity=Severity.INFO, step=step, message="m"))
            writer.add(Action(what="skip", step=step))
        if step % 3 == 0:
            writer.flush()
            print(step, flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
