"""The words of an alert: one line for a subject, and what stands beneath it.

In: an `Alert`. Out: plain text. What a model or a batch brought into it is made harmless here:
control characters become escapes, and a long text is cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.findings import layer_phrase

__all__ = ["body", "for_chat", "harmless", "said", "title"]

_MOST: Final = 500
_CHAT: Final = str.maketrans({"<": "\u2039", ">": "\u203a", "@": "\uff20"})
"""Marks by which chat services call people or hide an address, and what looks like them."""
_STATES: Final = {"opened": "", "escalated": " got worse", "resolved": " ended"}


def harmless(text: str, most: int = _MOST) -> str:
    r"""Return text on one line, without anything that steers a terminal or turns text around.

    Example:
        >>> harmless("a\x1b[2J\nb")
        'a\\x1b[2J\\x0ab'
    """
    kept = text if len(text) <= most else f"{text[:most]}…"
    return "".join(c if c.isprintable() else _escaped(c) for c in kept)


def for_chat(text: str) -> str:
    r"""Return text in which no chat service finds a mention or a link with words of its own.

    Slack reads ``<!channel>`` and ``<address|words>``, Discord, Teams and Mattermost
    ``@everyone`` and ``[words](address)``. What looks like their marks takes their place.

    Example:
        >>> ascii(for_chat("<!channel> @here [you won](http://x)"))
        "'\\u2039!channel\\u203a \\uff20here [you won] (http://x)'"
    """
    return text.translate(_CHAT).replace("](", "] (")


def said(error: BaseException) -> str:
    """Return an error's name and text; some have a text that raises.

    Example:
        >>> said(OSError("no route"))
        'OSError: no route'
    """
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001 - anybody's error
        return name


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def title(alert: Alert) -> str:
    """Say in one line what happened, where, and in which run.

    Example:
        >>> from lightning_gradguard.findings import Severity
        >>> title(Alert(kind="vanishing", state="opened", severity=Severity.ERROR, message="m",
        ...             layers=("encoder.0",), run="version_3"))
        '[ERROR] vanishing in encoder.0 (version_3)'
    """
    level = "resolved" if alert.state == "resolved" else alert.severity.name
    where = f" in {layer_phrase(alert.layers)}" if alert.layers else ""
    run = f" ({alert.run})" if alert.run else ""
    what = alert.kind.replace("_", " ")
    return harmless(f"[{level}] {what}{_STATES[alert.state]}{where}{run}")


def body(alert: Alert) -> str:
    """Say what was seen, since when, how much against normal, what was done and what to try."""
    return "\n".join(harmless(line) for line in _lines(alert))


def _lines(alert: Alert) -> Iterator[str]:
    yield f"{alert.message}."
    if (measured := _measured(alert)) is not None:
        yield measured
    if alert.step >= 0:
        since = "" if alert.since_step in {-1, alert.step} else f", since step {alert.since_step}"
        yield f"Step {alert.step}, epoch {alert.epoch}{since}."
    if alert.action:
        yield f"Done: {alert.action}."
    if alert.advice and alert.state != "resolved":
        yield f"Try: {alert.advice}"
    for line in alert.recent:
        yield f"Before: {line}"
    if alert.suppressed:
        many = "1 message was" if alert.suppressed == 1 else f"{alert.suppressed} messages were"
        yield f"{many} held back since the last one."
    if alert.host:
        yield f"Run {alert.run or '(no name)'} on {alert.host}."
    if alert.link:
        yield alert.link


def _measured(alert: Alert) -> str | None:
    if math.isnan(alert.value):
        return None
    against = "" if math.isnan(alert.limit) else f", limit {alert.limit:.4g}"
    unit = f" {alert.unit}" if alert.unit else ""
    return f"Measured {alert.value:.4g}{unit}{against}."
