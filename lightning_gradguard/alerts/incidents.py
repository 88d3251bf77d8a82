"""From findings to few messages: one incident per fault, told once.

In: findings, actions, the current step and the time. Out: alerts that are to be sent now. Knows no
channel, no thread and no clock of its own, so that every rule can be tested by hand.

An incident is a kind of fault in one part of the model. It is told when it begins, when it gets
worse and when it has ended for good: an end that is followed by a new beginning within
``settle_steps`` is neither told nor is the new beginning. After the last message about it the same
fault is quiet for a while, unless it gets worse, and there is a limit per hour for all of them, but
for what is critical and for ends. What was held back is counted, for the next message to tell of;
what still goes on when there is room again, or when the training ends, is told then.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from lightning_gradguard.alerts.alert import Alert, AlertState
from lightning_gradguard.audit import Action, action_line
from lightning_gradguard.findings import Finding, Severity

__all__ = ["Incidents", "group_of"]

_HOUR: Final = 3600.0
_MOST_KNOWN: Final = 1000
_MOST_ACTIONS: Final = 50

Key: TypeAlias = tuple[str, int, str]
"""Kind of fault, position of the optimizer, part of the model."""


@dataclass
class Incident:
    """What is known of one fault.

    Attributes:
        finding: The latest of it, with its worst severity.
        name: Its own; see `_name`.
        is_open: Whether it goes on.
        told: Severity of the last message about it; 0 before the first, and once it is over.
        told_at: When that was, in seconds; minus infinity before the first.
        is_held: Whether a message about it waits for the end of a quiet time.
    """

    finding: Finding
    name: str
    is_open: bool = True
    told: int = 0
    told_at: float = -math.inf
    is_held: bool = False


def group_of(layers: tuple[str, ...]) -> str:
    """Return the innermost module that holds all layers, as a glob; empty for the whole model.

    Example:
        >>> group_of(("encoder.0.fc", "encoder.1.fc")), group_of(("head",)), group_of(())
        ('encoder.*', 'head', '')
    """
    if len(layers) == 1:
        return layers[0]
    parts = [layer.split(".")[:-1] for layer in layers]
    shared = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join([*shared, "*"]) if shared else ""


class Incidents:
    """Decide what is told.

    Args:
        min_severity: Findings below it are not told.
        cooldown_seconds: Quiet time of an incident after a message, unless it gets worse.
        settle_steps: Optimizer steps for which a fault must stay away to count as ended.
        most_per_hour: Messages in any hour, of all incidents together.

    Attributes:
        untold: Incidents that went on when the training ended, and for which there was no room.

    Example:
        >>> incidents = Incidents()
        >>> fault = Finding(kind="exploding", severity=Severity.ERROR, step=3, message="m",
        ...                 episode_id=1)
        >>> [alert.state for alert in incidents.take(fault, now=0.0)]
        ['opened']
        >>> list(incidents.take(fault, now=1.0))
        []
    """

    def __init__(
        self,
        *,
        min_severity: Severity = Severity.WARNING,
        cooldown_seconds: float = 1800.0,
        settle_steps: int = 100,
        most_per_hour: int = 20,
    ) -> None:
        self._min_severity = min_severity
        self._cooldown, self._settle = cooldown_seconds, settle_steps
        self._most_per_hour = most_per_hour
        self._known: dict[Key, Incident] = {}
        self._by_episode: dict[tuple[int, int], Key] = {}
        self._sent: deque[float] = deque()
        self._held: list[Severity] = []
        self._actions: deque[Action] = deque(maxlen=_MOST_ACTIONS)
        self.untold = 0

    def note(self, action: Action) -> None:
        """Remember what a guard did, for the messages about what it did it against."""
        self._actions.append(action)

    def take(self, finding: Finding, *, now: float) -> Iterator[Alert]:
        """Take in a finding, and yield what is to be told at once.

        Args:
            finding: As `Episodes` gives it.
            now: Seconds, on a clock that never goes back.
        """
        key = self._key(finding)
        incident = self._known.get(key)
        # What was told has its end told, too, however mild it was at last.
        is_end = finding.state == "resolved" and incident is not None
        if finding.severity < self._min_severity and not is_end:
            return
        if finding.state == "resolved":
            if incident is None:  # it was told before a resume
                told = int(finding.severity)
                incident = self._known[key] = Incident(finding, _name(key, finding), told=told)
            worst = max(finding.severity, incident.finding.severity)
            incident.finding = replace(finding, severity=worst)
            incident.is_open = False
            return
        if incident is None:
            incident = self._known[key] = Incident(finding, _name(key, finding))
        elif not incident.is_open:
            self._open_again(key, incident, finding)
        worst = max(finding.severity, incident.finding.severity)
        incident.finding = replace(finding, severity=worst)
        yield from self._tell_if_due(key, incident, now, quiet_seconds=self._cooldown)

    def tick(self, *, step: int, now: float) -> Iterator[Alert]:
        """Yield what is to be told now that time has passed.

        Args:
            step: The latest optimizer step.
            now: As in `take`.
        """
        for key, incident in list(self._known.items()):
            if incident.is_open:
                yield from self._tell_if_due(key, incident, now, quiet_seconds=self._cooldown)
            elif step - incident.finding.step >= self._settle:
                yield from self._end(key, incident, now)

    def close(self, *, now: float) -> Iterator[Alert]:
        """Yield what was held back: ends, in case the fault came again, and what is quiet."""
        for key, incident in list(self._known.items()):
            if not incident.is_open:
                yield from self._end(key, incident, now)
            elif incident.is_held:
                yield from self._tell_if_due(key, incident, now, quiet_seconds=0.0)
        self.untold = sum(one.is_open and one.is_held for one in self._known.values())

    def admit(self, alert: Alert, *, now: float) -> Iterator[Alert]:
        """Yield a message that does not come from a finding, if it is severe enough."""
        if alert.severity >= self._min_severity:
            self._count(alert, now)
            yield alert

    def take_held(self) -> tuple[Severity, ...]:
        """Return the severities of the messages that were held back since the last call."""
        held = tuple(self._held)
        self._held.clear()
        return held

    def _key(self, finding: Finding) -> Key:
        """Return the incident that a finding belongs to: where its episode began."""
        episode = finding.optimizer_index, finding.episode_id
        here = finding.kind, finding.optimizer_index, group_of(finding.layers)
        if finding.state == "opened" or finding.episode_id == 0:
            self._by_episode[episode] = here
        if len(self._by_episode) > _MOST_KNOWN:
            del self._by_episode[next(iter(self._by_episode))]
        return self._by_episode.get(episode, here)

    def _open_again(self, key: Key, incident: Incident, finding: Finding) -> None:
        incident.is_open = True
        if incident.told:  # its end was not told either
            self._held += [incident.finding.severity, finding.severity]
            return
        # Another incident, which is counted again if it is held back as the one before was.
        incident.finding, incident.name, incident.is_held = finding, _name(key, finding), False

    def _tell_if_due(
        self, key: Key, incident: Incident, now: float, *, quiet_seconds: float
    ) -> Iterator[Alert]:
        severity = incident.finding.severity
        if severity <= incident.told:
            return
        is_quiet = not incident.told and now - incident.told_at < quiet_seconds
        is_full = not self._has_room(now) and severity < Severity.CRITICAL
        if is_quiet or is_full:
            self._held += [] if incident.is_held else [severity]
            incident.is_held = True
            return
        state: AlertState = "escalated" if incident.told else "opened"
        incident.told, incident.told_at, incident.is_held = int(severity), now, False
        alert = self._alert(key, incident, state)
        self._count(alert, now)
        yield alert

    def _end(self, key: Key, incident: Incident, now: float) -> Iterator[Alert]:
        told, incident.told, incident.is_held = incident.told, 0, False
        if told:
            incident.told_at = now
            yield self._alert(key, incident, "resolved")
        if now - incident.told_at >= self._cooldown or len(self._known) > _MOST_KNOWN:
            del self._known[key]

    def _count(self, alert: Alert, now: float) -> None:
        if alert.severity < Severity.CRITICAL and alert.state != "resolved":
            self._sent.append(now)

    def _has_room(self, now: float) -> bool:
        while self._sent and now - self._sent[0] >= _HOUR:
            self._sent.popleft()
        return len(self._sent) < self._most_per_hour

    def _alert(self, key: Key, incident: Incident, state: AlertState) -> Alert:
        finding, (kind, index, group) = incident.finding, key
        return Alert(
            kind=kind,
            state=state,
            severity=finding.severity,
            message=_message(finding, state),
            incident=incident.name,
            group=group,
            layers=finding.layers,
            step=finding.step,
            since_step=finding.since_step,
            epoch=finding.epoch,
            optimizer_index=index,
            value=finding.value,
            limit=finding.limit,
            unit=finding.unit,
            action=self._done_against(finding),
            advice=finding.advice,
        )

    def _done_against(self, finding: Finding) -> str:
        """Name the latest thing done since a fault began."""
        for action in reversed(self._actions):
            is_same = action.optimizer_index == finding.optimizer_index
            if is_same and action.step >= max(finding.since_step, 0):
                return action_line(action)
        return ""


def _name(key: Key, finding: Finding) -> str:
    """Name an incident after its first episode, which a checkpoint holds.

    So its end has the name of its beginning also after a resume, and no other incident has it.
    """
    kind, index, _ = key
    return f"{kind}/{index}/{finding.since_step}/{finding.episode_id}"


def _message(finding: Finding, state: AlertState) -> str:
    if state != "resolved":
        return finding.message
    length = finding.step - max(finding.since_step, 0)
    return f"nothing of it was seen any more at step {finding.step}; it lasted {length} steps"
