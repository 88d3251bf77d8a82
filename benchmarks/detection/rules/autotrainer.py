"""AUTOTRAINER's detection of training problems.

Source: Zhang et al., ICSE 2021; its repository as of 2023-12, `monitor.py` and the defaults of
`utils.py`. It looks at every third epoch, beginning with the first, at the gradients of one batch,
reports one problem, and then stops the training to repair it. An epoch is 25 steps here.

It works on classifiers and on accuracy, held-out and of training. Here the case's held-out score,
whose best is about 1, stands for both: more than the other rule sets are given. The loss on
held-out data, which must stay below 1e5, is the training loss here.

Left out: counting large weights and overfitting, which its decision does not use.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.record import Record
from benchmarks.detection.rules.alarm import Alarm, Kind

__all__ = ["AutoTrainer"]

GAP: Final = 3
"""Epochs from one check to the next."""


class AutoTrainer:
    """AUTOTRAINER."""

    name: Final = "AUTOTRAINER"

    def judge(self, record: Record) -> list[Alarm]:
        """Replay a training up to the first problem."""
        total = len(record.scores)
        marks: set[str] = set()
        for epoch in range(0, total, GAP):
            step = (epoch + 1) * record.epoch_steps - 1
            if _has_nan(record, step):
                # Reported as an explosion, and found by what is not finite: counted as either.
                return [Alarm(step, "exploding", "explode"), Alarm(step, "nonfinite", "explode")]
            marks |= _of_gradients(record, step)
            scores = record.scores[: epoch + 1]
            if len(scores) >= 0.3 * total:
                marks |= _of_scores(scores)
            found = _decision(marks)
            if found is not None:
                return [Alarm(step, *found)]
        return []


def _decision(marks: set[str]) -> tuple[Kind, str] | None:
    if marks & {"below target", "no progress"}:
        if "dying" in marks:
            return "dead", "relu"
        if "exploding" in marks:
            return "exploding", "explode"
        if "vanishing" in marks:
            return "vanishing", "vanish"
        return ("not_learning", "not_converge") if "no progress" in marks else None
    return ("diverging", "unstable") if "oscillating" in marks else None


def _has_nan(record: Record, step: int) -> bool:
    losses = record.loss_by_step[: step + 1]
    epochs = losses[: len(losses) // record.epoch_steps * record.epoch_steps]
    means = epochs.reshape(-1, record.epoch_steps).mean(axis=1)
    rows = record.steps == step
    seen = record.parameters
    is_bad = np.isinf(seen.grad_norm[rows]).any() or np.isinf(seen.weight_norm[rows]).any()
    return bool(is_bad or not np.isfinite(means).all() or means[-1] >= 1e5)


def _of_gradients(record: Record, step: int) -> set[str]:
    """Judge the gradients of an epoch's last step, each optimizer's by themselves."""
    seen, marks = record.parameters, set()
    for row in np.flatnonzero(record.steps == step):
        norms = seen.grad_norm[row, seen.is_kernel]
        norms = norms[~np.isnan(norms)]
        zeros, is_there = seen.grad_zeros[row], ~np.isnan(seen.grad_zeros[row])
        if not len(norms):
            continue
        # Nothing over nothing is no ratio: NaN is above and below no limit.
        with np.errstate(all="ignore"):
            ratio = norms[0] / norms[-1]
        if ratio < 1e-3 and norms[0] < 1e-4:
            marks.add("vanishing")
        if ratio > 70.0:
            marks.add("exploding")
        if np.average(zeros[is_there], weights=seen.sizes[is_there]) >= 0.7:
            marks.add("dying")
    return marks


def _of_scores(scores: NDArray[np.float64]) -> set[str]:
    marks = set()
    if scores.max() < 0.7:
        marks.add("below target")
    # Its code would call a single epoch no progress, since there is nothing to compare it with.
    if len(scores) > 1 and np.diff(scores).max() < 0.01:
        marks.add("no progress")
    if _oscillates(scores):
        marks.add("oscillating")
    return marks


def _oscillates(scores: NDArray[np.float64]) -> bool:
    before, here, after = scores[:-2], scores[1:-1], scores[2:]
    peaks = here[(here >= before) & (here >= after)]
    valleys = here[(here <= before) & (here <= after)]
    pairs = min(len(peaks), len(valleys))
    wide = int((peaks[:pairs] - valleys[:pairs] >= 0.03).sum())
    return wide >= 0.2 * len(scores)
