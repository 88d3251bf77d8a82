"""All that is measured on one model: time in turns, waits, memory, and the statistics alone.

In: a model and the watchers. Out: a `SubjectResult`. Prints nothing.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from benchmarks.lanes import Lane, Series, run_interleaved
from benchmarks.memory import Kept, kept_by_monitor
from benchmarks.models import Subject
from benchmarks.overhead_results import LaneResult, SubjectResult
from benchmarks.shares import WARM_UP, per_step, share
from benchmarks.statistics_pass import statistics_pass
from benchmarks.waits import waits_per_step
from benchmarks.watchers import BASE, TWIN, WATCHERS, Watcher
from lightning_gradguard import GradientMonitor

__all__ = ["measure_subject"]

_CYCLE: Final = 50
_WAITING: Final = (10, 3)
"""Steps in which waits are counted, of light lanes and of heavy ones."""


def measure_subject(
    subject: Subject, watchers: Sequence[Watcher], *, is_quick: bool = False
) -> SubjectResult:
    """Measure all lanes on one model.

    Args:
        subject: The model.
        watchers: The lanes, beside the unwatched one and its twin.
        is_quick: Whether few steps are enough.
    """
    everybody = (BASE, TWIN, *watchers)
    lanes = [_lane(watcher, subject) for watcher in everybody]
    parameters = list(subject.network().parameters())
    kept: list[Kept] = []
    with _quiet(), TemporaryDirectory() as name:
        folder = Path(name)
        series = run_interleaved(subject, lanes, folder)
        _check(series)
        waits = {watcher.name: _waits(watcher, subject, folder / "waits") for watcher in everybody}
        if "monitor" in series:
            # Neither of the two follows a written step, whose histograms are then on their way.
            steps = (30, 190) if subject.name == "many" and not is_quick else (10, 12)
            kept = kept_by_monitor(subject, folder / "kept", steps)
    results = (_result(watcher, subject, series, waits) for watcher in everybody)
    base = [1e3 * seconds for seconds in series[BASE.name].thread[WARM_UP:]]
    return SubjectResult(
        subject=subject,
        tensors=len(parameters),
        entries=sum(parameter.numel() for parameter in parameters),
        parameter_bytes=sum(parameter.nbytes for parameter in parameters),
        base_ms=share(base),
        lanes=tuple(results),
        statistics=statistics_pass(subject, rounds=10 if is_quick else 60),
        kept=tuple(kept),
    )


def _waits(watcher: Watcher, subject: Subject, folder: Path) -> float:
    steps = _WAITING[watcher.is_heavy]
    return waits_per_step(subject, watcher.callbacks, folder / watcher.name, steps)


def _lane(watcher: Watcher, subject: Subject) -> Lane:
    steps = subject.heavy_rounds if watcher.is_heavy else subject.rounds
    return Lane(watcher.name, watcher.callbacks, steps, watcher.log_every(subject.log_every))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice, and what monitors say of the models, from between the figures."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def _check(series: dict[str, Series]) -> None:
    """Refuse the figures of a monitor that has not looked as often as it was told to.

    Raises:
        RuntimeError: It has switched itself off, or left out steps.
    """
    strides = {watcher.name: watcher.stride for watcher in WATCHERS}
    for name, one in series.items():
        for callback in one.callbacks:
            if not isinstance(callback, GradientMonitor):
                continue
            summary, steps = callback.summary(), len(one.own)
            if summary.stopped or summary.observed_steps < steps // strides[name]:
                seen = f"{summary.observed_steps} looks in {steps} steps"
                msg = f"Lane {name!r} must look at each step, got {seen}: {summary.stopped}."
                raise RuntimeError(msg)


def _result(
    watcher: Watcher, subject: Subject, series: dict[str, Series], waits: dict[str, float]
) -> LaneResult:
    mine, base = series[watcher.name], series[BASE.name]
    # A lane may have fewer steps than the unwatched one; each is compared with its own round.
    own = [seconds / whole for seconds, whole in zip(mine.own, base.thread, strict=False)]
    collecting = [
        seconds / whole for seconds, whole in zip(mine.collecting, base.thread, strict=False)
    ]
    ratios = [seconds / whole for seconds, whole in zip(mine.process, base.process, strict=False)]
    log_every = watcher.log_every(subject.log_every)
    written = (mine.written - base.written) / len(mine.own)
    return LaneResult(
        watcher=watcher,
        steps=len(own) - WARM_UP,
        own=share(own[WARM_UP:]),
        own_per_step=per_step(own, watcher.recurring(log_every)),
        own_mean=_mean_over_cycles(own),
        collecting_mean=_mean_over_cycles(collecting),
        difference=share([ratio - 1.0 for ratio in ratios[WARM_UP:]]),
        waits=waits[watcher.name] - waits[BASE.name],
        written=written * log_every / _CYCLE if watcher.writes_rarely else written,
    )


def _mean_over_cycles(own: Sequence[float]) -> float:
    """Return the mean over whole cycles of 50 steps after the warm-up, NaN when there is none."""
    whole = (len(own) - WARM_UP) // _CYCLE * _CYCLE
    return float(np.mean(own[WARM_UP : WARM_UP + whole])) if whole else float("nan")
