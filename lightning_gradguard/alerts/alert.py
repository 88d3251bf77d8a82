"""One message about one incident, as a record.

In: what happened. Out: `Alert`, and its JSON, whose schema is versioned. The words that people read
are made in `text`; who is told, and when, is decided in `incidents`.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from lightning_gradguard.findings import Severity

__all__ = ["SCHEMA", "Alert", "AlertState", "fresh_incident", "fresh_name"]

SCHEMA: Final = "gradguard.alert/1"
"""Within this number keys may be added, but none is taken away or changes its meaning."""

AlertState = Literal["opened", "escalated", "resolved"]


def fresh_name() -> str:
    """Return a name that nothing else has, in any run; the training's random numbers stay."""
    return uuid.uuid4().hex


def fresh_incident(kind: str) -> str:
    """Return a name for an incident that begins now and of which no finding tells."""
    return f"{kind}/{fresh_name()[:12]}"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """What somebody is told.

    Attributes:
        kind: A kind of finding, or ``"exception"``, ``"interrupted"``, ``"stalled"`` or
            ``"switched_off"``.
        state: Whether the incident began, got worse or ended.
        severity: How bad it is, or was at its worst.
        message: What was seen, in one sentence without a full stop.
        id: Tells this alert from all others. An alert that comes twice, since its receiver took
            it without saying so, has the same.
        incident: Joins the alerts of one incident; no other incident of the run has it.
        group: The part of the model, such as ``"encoder.*"``; empty for all of it.
        layers: Layers concerned, in depth order.
        step: Optimizer step at which this was said.
        since_step: Optimizer step at which it began; -1 where that means nothing.
        epoch: Epoch of ``step``.
        optimizer_index: Position of the optimizer concerned.
        value: The number that was judged; NaN where there is none.
        limit: What it was judged against; NaN where there is none.
        unit: What the number is, such as ``"decades"``.
        action: What a guard did about it, in one sentence; empty if nothing.
        advice: What to try, in one sentence.
        recent: Headlines of the latest findings, where a run died.
        suppressed: Messages for this channel that were held back or lost since its last one.
        run: Name of the run.
        host: Name of the machine.
        link: Address of the layer in TensorBoard; empty if it was not configured.
        time: Seconds since 1970.
    """

    kind: str
    state: AlertState
    severity: Severity
    message: str
    id: str = ""
    incident: str = ""
    group: str = ""
    layers: tuple[str, ...] = ()
    step: int = -1
    since_step: int = -1
    epoch: int = 0
    optimizer_index: int = 0
    value: float = math.nan
    limit: float = math.nan
    unit: str = ""
    action: str = ""
    advice: str = ""
    recent: tuple[str, ...] = ()
    suppressed: int = 0
    run: str = ""
    host: str = ""
    link: str = ""
    time: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the alert as plain JSON types; what is not finite is None.

        Example:
            >>> alert = Alert(kind="exploding", state="opened", severity=Severity.ERROR,
            ...               message="norm 1e9")
            >>> [alert.to_dict()[key] for key in ("schema", "severity", "value")]
            ['gradguard.alert/1', 'error', None]
        """
        plain: dict[str, Any] = {"schema": SCHEMA}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Severity):
                value = value.name.lower()
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, float) and not math.isfinite(value):
                value = None
            plain[one.name] = value
        return plain
