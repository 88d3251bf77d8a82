"""TensorBoard: a few charts, a few histograms, and findings and actions as text.

In: events. Out: records through the writer that the user's logger has open, since a second
event file in the same folder would freeze the first one's charts.

Histograms are over log2 of the gradient's magnitude: over the value itself every layer of
every model is a spike at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol

import numpy as np

from lightning_gradguard import schema
from lightning_gradguard.audit import Action, action_line
from lightning_gradguard.events import Event, Observation
from lightning_gradguard.findings import Finding, layer_phrase
from lightning_gradguard.frame import Frame, Vector
from lightning_gradguard.histogram import octaves
from lightning_gradguard.sinks.layers import spread_over_depth, unusual_layers
from lightning_gradguard.sinks.marker import write_marker
from lightning_gradguard.sinks.scalars import layer_scalars, scalars

__all__ = ["TensorBoardSink"]

_FRAMES_TO_CHOOSE_FROM: Final = 20
_MOST_FINDINGS: Final = 200
_MOST_ACTIONS: Final = 50


class Writer(Protocol):
    """The part of ``SummaryWriter``, of torch or tensorboardX, that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def add_text(self, tag: str, text_string: str, global_step: int) -> None: ...
    def add_histogram_raw(self, *args: Any, **kwargs: Any) -> None: ...  # noqa: ANN401


class TensorBoardSink:
    """Write to TensorBoard.

    Args:
        writer: A ``SummaryWriter``, such as ``TensorBoardLogger.experiment``.
        layers: Globs of layers with a chart of their own; empty chooses up to
            ``most_layers``, those that stray furthest from their own median.
        most_layers: Limit of that choice.
        histograms: Globs of layers with a histogram; empty chooses up to
            ``most_histograms``, evenly over depth.
        most_histograms: Limit of that choice.

    Cost:
        Per written step about 31 microseconds a number and 0.2 ms a histogram.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        layers: Sequence[str] = (),
        most_layers: int = 40,
        histograms: Sequence[str] = (),
        most_histograms: int = 8,
    ) -> None:
        self._writer = writer
        self._layer_globs, self._most_layers = tuple(layers), most_layers
        self._histogram_globs, self._most_histograms = tuple(histograms), most_histograms
        self._early: dict[int, list[Frame]] = {}
        self._charted: dict[int, tuple[str, ...]] = {}
        self._findings: list[Finding] = []
        self._actions: list[Action] = []
        self._is_marked = False

    def emit(self, event: Event) -> None:
        """Write what is due of an observation, and the lists when something is new on them."""
        if isinstance(event, Observation):
            self._choose_layers(event.frame)
            if event.is_due:
                self._write(event)
        elif isinstance(event, Finding):
            self._findings = [*self._findings, event][-_MOST_FINDINGS:]
            table = _markdown(self._findings)
            self._writer.add_text("gradguard/findings", table, global_step=event.step)
        elif isinstance(event, Action) and event.what != "clip":
            self._actions = [*self._actions, event][-_MOST_ACTIONS:]
            lines = "\n".join(f"- {action_line(action)}" for action in reversed(self._actions))
            self._writer.add_text("gradguard/actions", lines, global_step=event.step)

    def _write(self, observation: Observation) -> None:
        frame = observation.frame
        numbers = scalars(observation)
        numbers |= layer_scalars(frame, self._charted.get(frame.optimizer_index, ()))
        for key, number in numbers.items():
            self._writer.add_scalar(key, number, global_step=frame.step)
        if not self._is_marked:
            self._is_marked = True
            write_marker(self._writer)
        if frame.log2_histogram is None:
            return
        chosen = _choose(frame.layers, self._histogram_globs, self._most_histograms)
        for layer, counts in zip(frame.layers, octaves(frame.log2_histogram), strict=True):
            if layer in chosen:
                self._write_histogram(frame, layer, counts)

    def _write_histogram(self, frame: Frame, layer: str, counts: Vector) -> None:
        filled = np.flatnonzero(np.nan_to_num(counts))
        if filled.size == 0:
            return
        first, last = int(filled[0]), int(filled[-1])
        # Column k ends at this power of two; the empty bucket in front gives TensorBoard, which
        # knows right edges only, the left edge of the first one.
        edges = schema.HISTOGRAM_LOW + np.arange(first - 1, last + 1, dtype=np.float64)
        kept = np.concatenate([[0.0], counts[first : last + 1]])
        centers = edges - 0.5
        self._writer.add_histogram_raw(
            tag=schema.histogram_key(layer, frame.optimizer_index),
            min=float(edges[0]),
            max=float(edges[-1]),
            num=float(kept.sum()),
            sum=float(kept @ centers),
            sum_squares=float(kept @ centers**2),
            bucket_limits=edges.tolist(),
            bucket_counts=kept.tolist(),
            global_step=frame.step,
        )

    def _choose_layers(self, frame: Frame) -> None:
        """Decide once which layers are charted, after a few frames if there is a choice."""
        index = frame.optimizer_index
        if index in self._charted:
            return
        early = self._early.setdefault(index, [])
        early.append(frame)
        if self._layer_globs:
            self._charted[index] = _choose(frame.layers, self._layer_globs, len(frame.layers))
        elif len(frame.layers) <= self._most_layers or len(early) == _FRAMES_TO_CHOOSE_FROM:
            self._charted[index] = unusual_layers(early, most=self._most_layers)
        else:
            return
        del self._early[index]


def _choose(layers: tuple[str, ...], globs: Sequence[str], most: int) -> tuple[str, ...]:
    if globs:
        return tuple(name for name in layers if any(fnmatchcase(name, glob) for glob in globs))
    return spread_over_depth(layers, most=most)


def _markdown(findings: Sequence[Finding]) -> str:
    """Return the findings as a list in Markdown, the latest first."""
    return "\n".join(map(_item, reversed(findings)))


def _item(finding: Finding) -> str:
    head = (
        f"- **step {finding.step}: {finding.severity.name} {finding.kind} {finding.state}** in "
        f"`{layer_phrase(finding.layers).replace('`', chr(39))}`: {finding.message}."
    )
    has_advice = finding.state == "opened" and finding.advice
    return f"{head} *Try:* {finding.advice}" if has_advice else head
