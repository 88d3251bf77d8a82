"""The summary of a run, as lines of plain text.

In: a `Summary`. Out: lines. Nothing is decided and nothing is printed here; the console sink
prints, with colours where it can.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from lightning_gradguard.findings import Finding, layer_phrase
from lightning_gradguard.frame import Frame
from lightning_gradguard.report.summary import Summary

__all__ = ["sparkline", "summary_lines", "verdict"]

_MOST_AGAIN: Final = 8
_BARS: Final = "▁▂▃▄▅▆▇█"


def verdict(summary: Summary) -> str:
    """Say in one line how the run went.

    Example:
        >>> verdict(Summary(faults=(), notices=(), observed_steps=120, steps=120))
        'healthy: nothing to report in 120 observed steps'
    """
    if summary.observed_steps == 0:
        reason = summary.stopped or "no optimizer step with gradients was seen"
        return f"nothing was observed: {reason}"
    if summary.stopped is not None:
        until = f"watching stopped after {summary.observed_steps} steps: {summary.stopped}"
        return f"{_faults(summary)}; {until}" if summary.faults else until
    if not summary.faults:
        return f"healthy: nothing to report in {summary.observed_steps} observed steps"
    return _faults(summary)


def _faults(summary: Summary) -> str:
    return "; ".join(_phrase(same, summary) for same in _by_kind(summary.faults))


def _phrase(same: Sequence[Finding], summary: Summary) -> str:
    """Say a fault, and how often it came."""
    first, times = same[0], f" {len(same)} times" if len(same) > 1 else ""
    is_over = all(fault.episode_id in summary.ended for fault in same)
    where, ended = layer_phrase(first.layers), " (ended)" if is_over else ""
    return f"{first.kind} in {where}{times} since step {first.since_step}{ended}"


def _by_kind(faults: Iterable[Finding]) -> list[list[Finding]]:
    """Join the faults that are of one kind, each in the order in which they began."""
    joined: dict[tuple[str, int], list[Finding]] = {}
    for fault in faults:
        joined.setdefault((fault.kind, fault.optimizer_index), []).append(fault)
    return list(joined.values())


def summary_lines(summary: Summary) -> list[str]:
    """Return the summary, one sentence or table row per line."""
    lines = [f"gradguard: {verdict(summary)}"]
    for same in (*_by_kind(summary.faults), *_by_kind(summary.notices)):
        lines += _fault_lines(*same)
    if summary.last_frame is not None and len(summary.last_frame.layers) > 1:
        lines.append(f"  depth   {sparkline(summary.last_frame)}  input to loss, log gradient norm")
    if summary.amp_overflows:
        lines.append(f"  scaler  {summary.amp_overflows} steps skipped, as float16 overflowed")
    lines += [_noise(index, scale) for index, scale in summary.noise_scales.items()]
    lines += [f"  guard   {act}" for act in summary.acts]
    lines += [f"  not checked: {reason}" for reason in summary.unchecked]
    lines.append(f"  cost    {_cost(summary)}")
    return lines


def sparkline(frame: Frame, *, width: int = 40) -> str:
    """Draw the layers' gradient norms in depth order, on a log scale.

    Args:
        frame: The step to draw.
        width: At most this many characters; more layers share one, the smallest wins.

    Returns:
        One bar per layer over the range from smallest to largest, at least three decades;
        ``x`` where nothing finite was measured, ``·`` where the norm is zero.
    """
    groups = np.array_split(frame.grad_norm, min(width, len(frame.grad_norm)))
    norms = [float(np.min(group)) if np.all(np.isfinite(group)) else math.nan for group in groups]
    logs = [math.log10(norm) for norm in norms if norm > 0.0]
    if not logs:
        return "".join("·" if norm == 0.0 else "x" for norm in norms)
    high = max(logs)
    span = max(high - min(logs), 3.0)
    return "".join(_bar(norm, high, span) for norm in norms)


def _bar(norm: float, high: float, span: float) -> str:
    if math.isnan(norm):
        return "x"
    if norm == 0.0:
        return "·"
    height = 1.0 - (high - math.log10(norm)) / span
    return _BARS[min(len(_BARS) - 1, int(height * len(_BARS)))]


def _fault_lines(fault: Finding, *again: Finding) -> Sequence[str]:
    head = f"  {fault.severity.name:8} {fault.kind:12} {layer_phrase(fault.layers)}"
    lines = [f"{head}, since step {fault.since_step}", f"           {fault.message}."]
    if fault.advice:
        lines.append(f"           try: {fault.advice}")
    if again:
        more = f", … ({len(again)} times)" if len(again) > _MOST_AGAIN else ""
        steps = ", ".join(str(one.since_step) for one in again[:_MOST_AGAIN])
        lines.append(f"           again since step {steps}{more}")
    return lines


def _noise(optimizer_index: int, scale: float) -> str:
    which = f", optimizer {optimizer_index}" if optimizer_index else ""
    return f"  noise   scale of about {scale:.3g} batches{which}: averaging over more hardly helps"


def _cost(summary: Summary) -> str:
    if math.isnan(summary.overhead_ms):
        return f"not measured; {summary.steps} steps"
    share = ""
    if summary.step_ms > 0.0:
        share = f", {100.0 * summary.overhead_ms / summary.step_ms:.1f} % of a step"
    every = f", one in {summary.interval}" if summary.interval > 1 else ""
    return (
        f"{summary.overhead_ms:.2f} ms per step{share}; "
        f"{summary.observed_steps} steps observed{every}, {summary.steps} made"
    )
