"""From evidence at single steps to faults with a beginning and an end.

In: what detectors said of one frame. Out: findings at onset, escalation and end only. Patience
and cooldown live here, once for all detectors, so that no detector flaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lightning_gradguard.findings import Finding

__all__ = ["Episode", "Episodes"]


@dataclass(frozen=True)
class Episode:
    """One fault, from its first evidence to its end.

    Attributes:
        first: The finding with which it opened, or its first evidence while it is pending.
        last: The latest evidence.
        count: Observed steps with evidence.
        is_open: Whether it was reported and goes on.
        worst: The finding of highest severity so far, which a summary shows.
    """

    first: Finding
    last: Finding
    count: int
    is_open: bool
    worst: Finding


class Episodes:
    """Open, escalate and end episodes.

    There is at most one episode for a kind and optimizer at a time; its layers are those of
    the latest evidence.

    Args:
        patience_steps: For each kind, how many observed steps in a row must show evidence
            before it is reported; 1 where a kind is not named.
        cooldown_steps: Optimizer steps without evidence after which an episode ends.

    State:
        Open and pending episodes, as JSON types.

    Example:
        >>> from lightning_gradguard.findings import Severity
        >>> seen = Finding(kind="spike", severity=Severity.INFO, step=3, message="large")
        >>> episodes = Episodes({"spike": 1}, cooldown_steps=2)
        >>> [f.state for f in episodes.update([seen], step=3)]
        ['opened']
        >>> [f.state for step in (4, 5, 6) for f in episodes.update([], step=step)]
        ['resolved']
    """

    def __init__(
        self, patience_steps: Mapping[str, int] | None = None, *, cooldown_steps: int = 50
    ) -> None:
        self._patience = dict(patience_steps or {})
        self._cooldown = cooldown_steps
        self._running: dict[tuple[str, int], Episode] = {}
        self._next_id = 1

    @property
    def open(self) -> tuple[Episode, ...]:
        """Episodes that were reported and go on."""
        return tuple(episode for episode in self._running.values() if episode.is_open)

    def update(
        self,
        evidence: Iterable[Finding],
        *,
        step: int,
        epoch: int = 0,
        optimizer_index: int = 0,
        can_end: bool = True,
    ) -> tuple[Finding, ...]:
        """Take in one step's evidence and return what is new.

        Args:
            evidence: What detectors found in the frame; several of a kind become the worst.
            step: Optimizer step of the frame.
            epoch: Epoch of the frame.
            optimizer_index: Optimizer of the frame.
            can_end: Whether silence means health; it does not once everything is NaN.
        """
        said: list[Finding] = []
        seen: set[str] = set()
        for finding in sorted(evidence, key=lambda f: -f.severity):
            if finding.kind in seen:
                continue
            seen.add(finding.kind)
            said += self._take(replace(finding, optimizer_index=optimizer_index))
        if can_end:
            mine = [key for key in self._running if key[1] == optimizer_index]
            said += [f for key in mine if key[0] not in seen for f in self._miss(key, step, epoch)]
        return tuple(said)

    def _take(self, finding: Finding) -> list[Finding]:
        key = (finding.kind, finding.optimizer_index)
        past = self._running.get(key)
        since = finding.step if past is None else past.first.since_step
        episode_id = past.first.episode_id if past is not None and past.is_open else 0
        now = replace(finding, since_step=since, episode_id=episode_id)
        count = 1 if past is None else past.count + 1
        if past is None or not past.is_open:
            return self._wait_or_open(key, now, count)
        if now.severity > past.worst.severity:
            now = replace(now, state="escalated")
            self._running[key] = replace(past, last=now, count=count, worst=now)
            return [now]
        self._running[key] = replace(past, last=now, count=count)
        return []

    def _wait_or_open(self, key: tuple[str, int], now: Finding, count: int) -> list[Finding]:
        is_open = count >= self._patience.get(now.kind, 1)
        if is_open:
            now = replace(now, state="opened", episode_id=self._next_id)
            self._next_id += 1
        self._running[key] = Episode(now, now, count, is_open, now)
        return [now] if is_open else []

    def _miss(self, key: tuple[str, int], step: int, epoch: int) -> list[Finding]:
        episode = self._running[key]
        if not episode.is_open:
            del self._running[key]  # patience asks for evidence in a row
            return []
        if step - episode.last.step <= self._cooldown:
            return []
        del self._running[key]
        return [replace(episode.last, state="resolved", step=step, epoch=epoch)]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "next_id": self._next_id,
            "running": [
                {
                    "first": episode.first.to_dict(),
                    "last": episode.last.to_dict(),
                    "worst": episode.worst.to_dict(),
                    "count": episode.count,
                    "is_open": episode.is_open,
                }
                for episode in self._running.values()
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._next_id = state["next_id"]
        self._running = {}
        for saved in state["running"]:
            first, last, worst = (Finding.from_dict(saved[k]) for k in ("first", "last", "worst"))
            episode = Episode(first, last, saved["count"], saved["is_open"], worst)
            self._running[first.kind, first.optimizer_index] = episode
