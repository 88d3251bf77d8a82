"""Vanishing over time: the early time steps of a recurrent layer get next to no gradient."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final

import numpy as np

from lightning_gradguard.checks import positive
from lightning_gradguard.detectors.over_time import (
    decades_over_time,
    decades_per_step,
    memory_horizon,
)
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Forgetting"]

_ADVICE: Final = (
    "a GRU, or an LSTM whose forget bias starts high, or an orthogonal recurrent matrix; "
    "clipping and a lower learning rate do not help."
)

_SAMPLES: Final = 20
"""Profiles over time whose median is judged: single ones swing by two decades."""


_SHUT_STALL_BLOCKS: Final = 3
"""Blocks for which the loss must stall where gates are shut, which leaves less to doubt."""


class Forgetting:
    """Judge the gradient of a recurrent layer's input over the time steps.

    Holds when it is ``limit_decades`` smaller at the early time steps than at the late ones, as
    the median over recent samples, while the loss stalls. An untrained LSTM or GRU looks vanished
    over time, and learns all the same: hence the stalled loss, and for layers with gates a warm-up,
    unless they lose ``shut_decades`` per time step, which an untrained gate, half open, does not.

    Args:
        limit_decades: Drop from the last to the first quarter of the time steps, in factors of ten.
        warmup_steps: Observed steps before layers with gates are judged.
        shut_decades: Loss per time step from which a gate is shut; half open, it loses 0.3.
        stall_blocks: The loss stalls when this many blocks of 20 steps are no better than as many
            before them.

    State:
        The course of the loss and the recent drops.
    """

    def __init__(
        self,
        *,
        limit_decades: float = 4.0,
        warmup_steps: int = 500,
        shut_decades: float = 0.4,
        stall_blocks: int = 5,
    ) -> None:
        self._limit = positive("limit_decades", limit_decades)
        self._stall_blocks = int(positive("stall_blocks", stall_blocks))
        self._warmup = warmup_steps
        self._shut_decades = positive("shut_decades", shut_decades)
        self._progress = LossProgress()
        self._drops: dict[str, deque[float]] = {}
        self._rates: dict[str, deque[float]] = {}
        self._hidden: dict[str, float] = {}
        self._seen = 0

    def update(self, frame: Frame) -> Finding | None:
        """Return a finding while the rule holds."""
        self._seen += 1
        self._progress.update(frame.loss)
        for layer, profile in frame.time_profiles.items():
            decades = decades_over_time(profile)
            if not math.isnan(decades):
                self._drops.setdefault(layer, deque(maxlen=_SAMPLES)).append(decades)
                rates = self._rates.setdefault(layer, deque(maxlen=_SAMPLES))
                # The early quarter lies three quarters of all steps before the late one.
                rates.append(decades / (0.75 * len(profile)))
        for name, (steps, _, late) in frame.hidden_profiles.items():
            self._hidden[name] = decades_per_step(steps, late)
        if not self._progress.stalls(min(self._stall_blocks, _SHUT_STALL_BLOCKS)):
            return None
        stalls = self._progress.stalls(self._stall_blocks)
        plain = {
            n for n, role in zip(frame.layers, frame.roles, strict=False) if role == "recurrent"
        }
        found: dict[str, float] = {}
        for layer, drops in self._drops.items():
            drop = float(np.median(drops))
            is_shut = float(np.median(self._rates[layer])) >= self._shut_decades
            is_known = len(drops) == _SAMPLES and (layer in plain or self._seen > self._warmup)
            is_certain = (is_known and stalls) or (is_shut and len(drops) >= _SAMPLES // 2)
            if is_certain and drop >= self._limit:
                found[layer] = drop
        return self._finding(frame, found) if found else None

    def _finding(self, frame: Frame, found: dict[str, float]) -> Finding:
        worst = max(found, key=found.__getitem__)
        drop, rate = found[worst], self._rate(worst)
        return Finding(
            kind="vanishing",
            rule="over time",
            severity=Severity.ERROR,
            step=frame.step,
            epoch=frame.epoch,
            layers=tuple(found),
            value=drop,
            limit=self._limit,
            unit="decades",
            message=(
                f"the gradient falls {rate:.2g} decades per time step: steps older than "
                f"{memory_horizon(rate):.0f} get less than 0.01 % of it, the first ones "
                f"10^{drop:.1f} times less than the last, and the loss stalls"
            ),
            advice=_ADVICE,
        )

    def _rate(self, layer: str) -> float:
        """Return what is lost per time step: of its states if these were seen, else of its input.

        Of layers upon each other the one that remembers longest counts.
        """
        runs = [rate for name, rate in self._hidden.items() if name.rpartition("/")[0] == layer]
        known = [rate for rate in runs if rate > 0.0]
        return min(known) if known else float(np.median(self._rates[layer]))

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "seen": self._seen,
            "progress": self._progress.state_dict(),
            "drops": {layer: list(drops) for layer, drops in self._drops.items()},
            "hidden": dict(self._hidden),
            "rates": {layer: list(rates) for layer, rates in self._rates.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._seen = state["seen"]
        self._progress.load_state_dict(state["progress"])
        self._hidden = dict(state["hidden"])
        self._drops, self._rates = (
            {name: deque(numbers, maxlen=_SAMPLES) for name, numbers in state[part].items()}
            for part in ("drops", "rates")
        )
