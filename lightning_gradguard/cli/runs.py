"""Runs, as the commands need them: opened, described, summed up.

In: what a person typed, and the reader of histories. Out: open runs; what is known of one, as
plain types; its `Summary`. What a history says of itself is shown, never trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lightning_gradguard.frame import Frame
    from lightning_gradguard.history import Run
    from lightning_gradguard.report.summary import Summary

__all__ = ["about", "acts", "each_run", "latest", "one_run", "optimizers", "state", "summed_up"]

_ENDINGS: Final = {
    "finished": "finished",
    "exception": "ended by an exception",
    "interrupted": "interrupted",
    None: "not finished: it still trains, or it was killed",
}


@contextmanager
def one_run(path: str) -> Iterator[Run]:
    """Open a run, and close it afterwards.

    Raises:
        HistoryError: There is no history, there are several, or it cannot be read.
    """
    from lightning_gradguard.history import load_run

    with load_run(path) as run:
        yield run


@contextmanager
def each_run(paths: Sequence[str]) -> Iterator[list[Run]]:
    """Open several runs; a folder stands for all that are beneath it.

    Raises:
        HistoryError: A path leads to no history, or one of them cannot be read.
    """
    from lightning_gradguard.history import find_histories, load_run

    files: dict[Path, str] = {}
    for path in paths:
        for file in find_histories(path) or [Path(path)]:
            files.setdefault(file, path)
    with ExitStack() as stack:
        yield [stack.enter_context(load_run(file, start=path)) for file, path in files.items()]


def state(run: Run) -> str:
    """Say whether a run came to its end.

    Example:
        >>> from types import SimpleNamespace
        >>> state(SimpleNamespace(meta={"finished": "exception"}))
        'ended by an exception'
    """
    ending = run.meta.get("finished")
    return _ENDINGS.get(ending if isinstance(ending, str) else None, str(ending))


def about(run: Run) -> dict[str, Any]:
    """Return what is known of a run, as plain types."""
    return {
        "name": run.name,
        "path": str(run.path),
        "state": run.meta.get("finished"),
        "meta": dict(run.meta),
        "optimizers": optimizers(run),
    }


def optimizers(run: Run) -> list[dict[str, Any]]:
    """Return what was recorded of each optimizer, as plain types."""
    return [_optimizer(run, index) for index in run.optimizers]


def _optimizer(run: Run, index: int) -> dict[str, Any]:
    steps = run.steps(index)
    return {
        "index": index,
        "layers": len(run.layers(index)),
        "steps": len(steps),
        "first_step": int(steps[0]) if len(steps) else None,
        "last_step": int(steps[-1]) if len(steps) else None,
    }


def summed_up(run: Run) -> Summary:
    """Return a run's summary, made from what was stored.

    Cost:
        Reads one statistic and two scalars of the first optimizer.
    """
    from lightning_gradguard.report.summary import summarise

    steps = [run.steps(index) for index in run.optimizers]
    return summarise(
        run.findings,
        observed_steps=sum(map(len, steps)) + thinned_steps(run),
        steps=sum(int(mine[-1]) + 1 for mine in steps if len(mine)),
        last_frame=_last_frame(run),
        acts=acts(run),
        overhead_ms=latest(run, "overhead_ms"),
        **_said(run.meta),
    )


def thinned_steps(run: Run) -> int:
    """Return how many steps are no longer in the file, since there were too many."""
    thinned = run.meta.get("thinned")
    steps = thinned.get("steps") if isinstance(thinned, Mapping) else 0
    return steps if isinstance(steps, int) else 0


def thinned_text(run: Run) -> str:
    """Say that old steps were thinned, after what is said of those that are there."""
    count = thinned_steps(run)
    return f"; {count:,} old ones were thinned" if count else ""


def _said(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what only the run itself could know, where the file has it in the right form."""
    stopped, unchecked = meta.get("stopped"), meta.get("unchecked")
    said: dict[str, Any] = {"stopped": stopped if isinstance(stopped, str) else None}
    if isinstance(unchecked, list):
        said["unchecked"] = [str(one) for one in unchecked]
    if isinstance(overflows := meta.get("amp_overflows"), int):
        said["amp_overflows"] = overflows
    return said


def acts(run: Run) -> tuple[str, ...]:
    """Say what a guard did in all, one sentence each."""
    from lightning_gradguard.audit import Audit

    actions = run.actions
    audit = Audit(dry_run=any(action.dry_run for action in actions))
    for action in actions:
        audit.note(action)
    for index in run.optimizers:
        if "guard_clip_coefficient" in run.scalars:
            for coefficient in run.scalar("guard_clip_coefficient", index).tolist():
                audit.note_step(coefficient)
    return tuple(audit.lines())


def latest(run: Run, scalar: str) -> float:
    """Return the last known value of a scalar of the first optimizer; NaN where there is none."""
    import numpy as np

    if scalar not in run.scalars or not run.optimizers:
        return float("nan")
    values = run.scalar(scalar, run.optimizers[0])
    known = values[~np.isnan(values)]
    return float(known[-1]) if len(known) else float("nan")


def _last_frame(run: Run) -> Frame | None:
    """Return what the drawing over depth needs of the last step: its gradient norms."""
    import numpy as np

    from lightning_gradguard.frame import Frame

    if not run.optimizers or "grad_norm" not in run.statistics:
        return None
    index = run.optimizers[0]
    layers, steps = run.layers(index), run.steps(index)
    if not len(steps) or not layers:
        return None
    unknown: dict[str, Any] = dict.fromkeys(_UNKNOWN, np.full(len(layers), np.nan))
    norms = run.statistic("grad_norm", index)[-1].astype(np.float64)
    return Frame(
        step=int(steps[-1]),
        layers=layers,
        grad_norm=norms,
        is_sampled=np.zeros(len(layers), dtype=np.bool_),
        global_grad_norm=float(np.sqrt(np.nansum(norms**2))),
        **unknown,
    )


_UNKNOWN: Final = (
    "grad_rms",
    "grad_mean",
    "grad_std",
    "grad_abs_max",
    "zero_fraction",
    "num_nonfinite",
    "param_norm",
    "update_norm",
    "weight_grad_norm",
    "weight_param_norm",
    "weight_update_norm",
)
