"""What the monitor says goes on, for remedies that act on it.

In: a moment. Out: its episodes of some kinds, where the evidence is fresh.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gradguard import options, schema
from lightning_gradguard.episodes import Episode
from lightning_gradguard.remedies.base import Moment

__all__ = ["as_kinds", "describe", "fresh_faults", "open_alarms"]


def as_kinds(kinds: Sequence[str] | str) -> tuple[str, ...]:
    """Return kinds of finding as a tuple.

    Raises:
        ValueError: There is no such kind, or none at all.
        TypeError: They are no texts.
    """
    found = options.as_globs("kinds", kinds)
    if not found:
        msg = f"`kinds` must name at least one kind of finding, got {kinds!r}."
        raise ValueError(msg)
    for kind in found:
        options.check_choice("kinds", kind, schema.KINDS)
    return found


def open_alarms(moment: Moment) -> list[Episode]:
    """Return the faults that go on, of any kind; notices are none."""
    return [episode for episode in moment.episodes if episode.worst.is_alarm]


def fresh_faults(moment: Moment, kinds: Sequence[str], since_step: int) -> list[Episode]:
    """Return alarms of these kinds that go on and were seen at or after a step."""
    return [
        episode
        for episode in open_alarms(moment)
        if episode.last.kind in kinds and episode.last.step >= since_step
    ]


def describe(episode: Episode) -> str:
    """Say a fault in a few words: its kind, and since when.

    Example:
        >>> from lightning_gradguard.findings import Finding, Severity
        >>> finding = Finding(kind="diverging", severity=Severity.ERROR, step=9, since_step=7,
        ...                   message="loss runs away")
        >>> describe(Episode(finding, finding, 1, True, finding))
        'diverging since step 7: loss runs away'
    """
    last = episode.last
    return f"{last.kind} since step {episode.first.since_step}: {last.message}"
