"""What is wrong, as a record: which layers, since when, how much, what to try.

In: evidence from detectors. Out: `Finding`, and the sentences people read. This file never
decides anything; detectors do, and `episodes` says when a finding starts and ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Literal, get_args

from lightning_gradguard import checks

__all__ = ["Finding", "Severity", "State", "headline", "layer_phrase"]

State = Literal["opened", "escalated", "resolved"]


class Severity(IntEnum):
    """How bad a finding is, with the numbers of the standard library's `logging`.

    ``INFO`` is a notice. ``WARNING`` and above are alarms: training works worse than it
    could. ``ERROR``: it does not work. ``CRITICAL``: it is being destroyed.
    """

    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault at one moment.

    Attributes:
        kind: What is wrong, one of `schema.KINDS` or `schema.NOTICES`, or a name of your own.
        severity: How bad it is.
        step: Optimizer step at which this was said.
        layers: Layers concerned, in depth order; empty when it is about the whole run.
        value: The number that was judged.
        limit: What the number was judged against.
        unit: What the number is, such as ``"decades"``; may be empty.
        message: What was seen, in one sentence without a full stop.
        advice: What to try, in one sentence.
        state: Whether the fault began, got worse or ended.
        since_step: First step at which the evidence held.
        epoch: Epoch of ``step``.
        optimizer_index: Position of the optimizer concerned.
        rank: Process concerned, or None when all see the same.
        episode_id: Joins the findings of one fault from its beginning to its end; 0 before
            `Episodes` gave it one.
        rule: Which of a detector's rules held, such as ``"over depth"``; may be empty.
    """

    kind: str
    severity: Severity
    step: int
    message: str
    layers: tuple[str, ...] = ()
    value: float = float("nan")
    limit: float = float("nan")
    unit: str = ""
    advice: str = ""
    state: State = "opened"
    since_step: int = -1
    epoch: int = 0
    optimizer_index: int = 0
    rank: int | None = None
    episode_id: int = 0
    rule: str = ""

    @property
    def is_alarm(self) -> bool:
        """Whether somebody should look: severity ``WARNING`` or above."""
        return self.severity >= Severity.WARNING

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain JSON types."""
        return {**asdict(self), "severity": int(self.severity), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Finding:
        """Rebuild a finding from `to_dict`; unknown keys are ignored.

        Raises:
            KeyError, TypeError, ValueError: It was made by something else.
        """
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        known["severity"] = Severity(known["severity"])
        known["layers"] = tuple(known.get("layers", ()))
        found = cls(**known)
        texts = (found.kind, found.message, found.advice, found.unit, found.rule, *found.layers)
        checks.check_types(str, texts)
        checks.check_types(int, (found.step, found.since_step, found.epoch, found.episode_id))
        checks.check_types(int, (found.optimizer_index, *([found.rank] if found.rank else [])))
        checks.check_types((int, float), (found.value, found.limit))
        if found.state not in get_args(State):
            msg = f"a finding is opened, escalated or resolved, got {found.state!r}"
            raise ValueError(msg)
        return found


def layer_phrase(layers: Sequence[str], *, most: int = 2) -> str:
    """Name layers in few words.

    Args:
        layers: Names, in depth order.
        most: Up to this many are spelled out.

    Example:
        >>> layer_phrase(["stem", "layers.0.conv1"])
        'stem, layers.0.conv1'
        >>> layer_phrase(["layers.0.conv1", "layers.0.conv2", "layers.1.conv1"])
        'layers.0.conv1 … layers.1.conv1 (3 layers under layers.*)'
        >>> layer_phrase([])
        'whole model'
    """
    if not layers:
        return "whole model"
    if len(layers) <= most:
        return ", ".join(layers)
    stem = _common_stem(layers)
    where = f" under {stem}.*" if stem else ""
    return f"{layers[0]} … {layers[-1]} ({len(layers)} layers{where})"


def _common_stem(layers: Sequence[str]) -> str:
    """Return the innermost module that holds all of some layers; empty for the whole model."""
    parts = [layer.split(".")[:-1] for layer in layers]
    shared = [
        names[0] for names in zip(*parts, strict=False) if all(name == names[0] for name in names)
    ]
    while shared and not all(layer.startswith(f"{'.'.join(shared)}.") for layer in layers):
        shared.pop()
    return ".".join(shared)


def headline(finding: Finding) -> str:
    """Say a finding in one line.

    Example:
        >>> headline(Finding(kind="vanishing", severity=Severity.ERROR, step=40,
        ...                  since_step=21, layers=("stem",), message="too small"))
        'step 40  ERROR vanishing  stem: too small. Since step 21.'
    """
    where = layer_phrase(finding.layers)
    if finding.state == "resolved":
        length = finding.step - finding.since_step
        return f"step {finding.step}  {finding.kind} ended  {where}: after {length} steps."
    worse = " got worse" if finding.state == "escalated" else ""
    since = "" if finding.since_step in {-1, finding.step} else f" Since step {finding.since_step}."
    name = finding.severity.name
    return f"step {finding.step}  {name} {finding.kind}{worse}  {where}: {finding.message}.{since}"
