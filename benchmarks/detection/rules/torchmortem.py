"""torchmortem's report after a training.

Source: torchmortem 0.1.1, its detectors and the collectors that feed them. It speaks once, at the
end, mostly of the second half; alarms therefore come at the last step. Findings of its severities
"warning" and "critical" are alarms.

Done as there, though it looks odd: a layer is dead by its share of outputs near zero, which a
healthy ReLU also has; any output counts as saturated that is farther from zero than 0.95, which
makes an alarm of the logits of nearly every classifier, hence the switch; a layer
whose own forward is never called, as that of a fused attention, has gradient zero; weights are
what a leaf module calls ``weight``. Frozen weights, which it would call stagnant, are not shown
to it.

Left out: gradient noise, effective rank, curvature and the comparison of weights between layers,
which say nothing that has a label here; and notes of severity "info".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.record import Record
from benchmarks.detection.rules.alarm import Alarm, Kind, in_order

__all__ = ["Torchmortem"]


class Torchmortem:
    """torchmortem.

    Args:
        with_saturation: Whether its detector of saturation, which is on by default, is among the
            rules.
    """

    def __init__(self, *, with_saturation: bool) -> None:
        self.with_saturation = with_saturation

    @property
    def name(self) -> str:
        """Of the tool, and of what is switched on."""
        return "torchmortem" + (" + saturation" if self.with_saturation else "")

    def judge(self, record: Record) -> list[Alarm]:
        """Judge a training when it is over."""
        if not len(record.steps):
            return []
        end = int(record.steps[-1])
        with np.errstate(all="ignore"):
            found = {*_flow(record), *_dead(record), *_updates(record), *_weights(record)}
            found |= {*_loss(record), *(_saturated(record) if self.with_saturation else ())}
        return in_order(Alarm(end, kind, rule) for kind, rule in found)


def _flow(record: Record) -> Iterator[tuple[Kind, str]]:
    norms = np.nan_to_num(record.by_step(record.outputs.grad_norm), posinf=np.inf)
    norms = norms[:, record.outputs.is_trained].astype(float)
    if norms.shape[1] < 2:
        return
    means = _late(norms).mean(axis=0)
    if means[0] < 1e-30 or (means[-1] >= 1e-30 and means[-1] / means[0] >= 100.0):
        yield "vanishing", "gradient_flow: vanishing"
    if (norms > 1000.0).any():
        yield "exploding", "gradient_flow: exploding"
    if ((norms < 1e-8).mean(axis=0) >= 0.3).any():
        yield "vanishing", "gradient_flow: stalling"


def _dead(record: Record) -> Iterator[tuple[Kind, str]]:
    if _often(record.by_step(record.outputs.near_zero)):
        yield "dead", "dead_units"


def _saturated(record: Record) -> Iterator[tuple[Kind, str]]:
    if _often(record.by_step(record.outputs.near_one)):
        yield "saturated", "saturation"


def _often(shares: NDArray[Any]) -> bool:
    """Return whether a layer has a share above a half in half of the late steps."""
    return bool(((_late(shares) > 0.5).mean(axis=0) >= 0.5).any())


def _updates(record: Record) -> Iterator[tuple[Kind, str]]:
    seen, columns = record.parameters, _columns(record)
    ratio = record.by_step(seen.update_norm / seen.weight_norm)[1:, columns]
    late = _late(ratio)
    medians = [np.median(column[column > 0.0]) for column in late.T if (column > 0.0).any()]
    if any(median < 1e-5 for median in medians):
        yield "not_learning", "update_ratio: low"
    if any(median > 0.1 for median in medians):
        yield "diverging", "update_ratio: high"


def _weights(record: Record) -> Iterator[tuple[Kind, str]]:
    norms = record.by_step(record.parameters.weight_norm)[:, _columns(record)].astype(float)
    seen = [column[~np.isnan(column)] for column in norms.T]
    pairs = [(c[0], c[-1]) for c in seen if len(c) >= 4 and c[0] >= 1e-30 and np.isfinite(c[0])]
    if any(last / first > 10.0 for first, last in pairs):
        yield "exploding", "weight_norm: explosion"
    if any(abs(last - first) / first < 1e-4 for first, last in pairs):
        yield "not_learning", "weight_norm: stagnation"


def _loss(record: Record) -> Iterator[tuple[Kind, str]]:
    losses = record.loss_by_step
    if len(losses) < 10:
        return
    smooth = np.empty_like(losses)
    smooth[0] = losses[0]
    for step in range(1, len(losses)):
        smooth[step] = 0.1 * losses[step] + 0.9 * smooth[step - 1]
    tail = smooth[-min(20, len(smooth) // 2) :]
    is_rising = (np.diff(tail) > 0.0).mean() >= 0.8
    if is_rising and (tail[0] <= 1e-30 or tail[-1] / tail[0] >= 1.5):
        yield "diverging", "loss_dynamics: divergence"
    if _has_plateau(smooth):
        yield "not_learning", "loss_dynamics: plateau"


def _has_plateau(smooth: NDArray[np.float64]) -> bool:
    starts = range(len(smooth) // 2, len(smooth) - 20, 20) if len(smooth) >= 40 else range(0)
    parts = (smooth[start : start + 20] for start in starts)
    return any(
        part.mean() >= 1e-30 and (part.max() - part.min()) / abs(part.mean()) < 1e-5
        for part in parts
    )


def _columns(record: Record) -> NDArray[np.bool_]:
    names = record.parameters.names
    return np.array([name.rpartition(".")[2] == "weight" for name in names], dtype=bool)


def _late(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[len(rows) // 2 :]
