"""From frames to findings: detectors and episodes together.

In: frames, of any number of optimizers. Out: findings at onset, escalation and end. Plain
Python without torch or Lightning, so that recorded frames can be judged again anywhere.
"""

from __future__ import annotations

import copy
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from lightning_gradguard import schema
from lightning_gradguard.detectors import Detector, Sensitivity, default_detectors
from lightning_gradguard.episodes import Episode, Episodes
from lightning_gradguard.evidence import Evidence, Recall
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["Inspector"]

_MOST_FINDINGS: Final = 1000
"""Older findings are dropped, so that a month-long run keeps a bounded memory."""


class Inspector:
    """Judge frames.

    Each optimizer is judged apart, by its own copy of the detectors.

    Args:
        detectors: What to look for; None takes `detectors.default_detectors`.
        sensitivity: Of the default detectors, see there.
        ignore: Kinds not to report, or ``"kind:glob"`` to leave out layers of a kind.
        cooldown_steps: Optimizer steps without evidence after which an episode ends.
        on_error: ``"warn"`` switches a failing detector off and goes on with the others.

    Attributes:
        muted: Detectors that were switched off, one sentence each.

    Raises:
        ValueError: ``ignore`` names a kind that no detector here reports, or there is no such
            sensitivity.

    State:
        Detectors and episodes, as JSON types.

    Example:
        >>> inspector = Inspector(ignore=["vanishing:encoder.*"])
        >>> inspector.findings
        ()
    """

    def __init__(
        self,
        detectors: Sequence[Detector] | None = None,
        *,
        sensitivity: Sensitivity = "normal",
        ignore: Sequence[str] = (),
        cooldown_steps: int = 50,
        on_error: Literal["warn", "raise"] = "raise",
    ) -> None:
        self.muted: list[str] = []
        self._on_error = on_error
        self._originals = default_detectors(sensitivity) if detectors is None else list(detectors)
        self._copies: dict[int, list[Detector]] = {}
        patience = {name: n for d in self._originals for name, n in _patience(d).items()}
        kinds = tuple(dict.fromkeys((*schema.KINDS, *schema.NOTICES, *patience)))
        self._ignore = tuple(_ignore_rule(rule, kinds) for rule in ignore)
        self._episodes = Episodes(patience, cooldown_steps=cooldown_steps)
        self._findings: deque[Finding] = deque(maxlen=_MOST_FINDINGS)
        self._recall: dict[int, Recall] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything reported so far, oldest first."""
        return tuple(self._findings)

    @property
    def open_episodes(self) -> tuple[Episode, ...]:
        """Faults that go on."""
        return self._episodes.open

    @property
    def severity(self) -> Severity | None:
        """The worst severity among faults that go on."""
        return max((e.worst.severity for e in self._episodes.open), default=None)

    @property
    def flagged_layers(self) -> tuple[str, ...]:
        """Layers with an alarm that goes on."""
        alarms = (e.last for e in self._episodes.open if e.worst.is_alarm)
        return tuple(dict.fromkeys(layer for finding in alarms for layer in finding.layers))

    def may_find(self, kind: str) -> bool:
        """Whether a kind may be reported; a detector that names none may report any."""
        if (kind, "*") in self._ignore:
            return False
        return any(kind in (_patience(d) or (kind,)) for d in self._originals)

    def update(self, frame: Frame) -> tuple[Finding, ...]:
        """Judge one frame and return what is new.

        Args:
            frame: Frames of one optimizer must come in the order of their steps.
        """
        detectors = self._detectors_of(frame.optimizer_index)
        evidence = [f for detector in tuple(detectors) for f in self._judge(detector, frame)]
        kept = [left for f in evidence if (left := self._without_ignored(f)) is not None]
        new = self._episodes.update(
            kept,
            step=frame.step,
            epoch=frame.epoch,
            optimizer_index=frame.optimizer_index,
            can_end=not frame.has_nonfinite,
        )
        recall = self._recall.setdefault(frame.optimizer_index, Recall())
        recall.remember(frame)
        for finding in new:
            if finding.state != "resolved":
                recall.keep(finding)
        self._findings.extend(new)
        return new

    def evidence(self, finding: Finding) -> Evidence | None:
        """Return what a finding rests on, or None when it is no longer kept."""
        recall = self._recall.get(finding.optimizer_index)
        return None if recall is None else recall.evidence(finding.episode_id)

    def look_back(self, layer: str) -> Evidence:
        """Return the latest steps as seen from a layer, of the optimizer that has it."""
        seen = [recall.look_back(layer) for recall in self._recall.values()]
        with_layer = [e for e in seen if any(x is not None for x in e.history_grad_ratio)]
        return (with_layer or seen or [Recall().look_back(layer)])[0]

    def _judge(self, detector: Detector, frame: Frame) -> Sequence[Finding]:
        """Ask one detector; one that fails must not silence the others."""
        try:
            # A forgotten `return`, and what a generator raises, are this detector's affair.
            return tuple(detector.update(frame) or ())
        except Exception as error:
            if self._on_error == "raise":
                raise
            self._copies[frame.optimizer_index].remove(detector)
            name = type(detector).__name__
            self.muted.append(
                f"{name} was switched off at step {frame.step}: {type(error).__name__}: {error}"
            )
            warnings.warn(f"gradguard: {self.muted[-1]}", stacklevel=2)
            return ()

    def _detectors_of(self, optimizer_index: int) -> list[Detector]:
        if optimizer_index not in self._copies:
            self._copies[optimizer_index] = [_copy(detector) for detector in self._originals]
        return self._copies[optimizer_index]

    def _without_ignored(self, finding: Finding) -> Finding | None:
        """Take ignored layers out; None when nothing is left to say."""
        for kind, glob in self._ignore:
            if kind != finding.kind:
                continue
            if glob == "*":
                return None
            layers = tuple(layer for layer in finding.layers if not fnmatchcase(layer, glob))
            if finding.layers and not layers:
                return None
            finding = replace(finding, layers=layers)
        return finding

    def learned(self) -> dict[str, Any]:
        """Return what the detectors have learned, as JSON types."""
        return {
            str(index): [
                {"type": type(detector).__name__, "state": _state(detector)}
                for detector in detectors
            ]
            for index, detectors in self._copies.items()
        }

    def forget_since(self, learned: Mapping[str, Any]) -> None:
        """Let the detectors know no more than they did then; what was found stays found.

        Args:
            learned: As `learned` returned it.
        """
        self._copies = {}
        for index, saved in learned.items():
            left = list(saved)
            self._copies[int(index)] = [self._loaded(d, left) for d in self._originals]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "episodes": self._episodes.state_dict(),
            "findings": [finding.to_dict() for finding in self._findings],
            "evidence": {str(i): recall.state_dict() for i, recall in self._recall.items()},
            "detectors": self.learned(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; a detector that it knows nothing of starts afresh."""
        self._episodes.load_state_dict(state["episodes"])
        self._findings = deque(map(Finding.from_dict, state["findings"]), maxlen=_MOST_FINDINGS)
        self._recall = {}
        for index, kept in state["evidence"].items():
            self._recall[int(index)] = Recall()
            self._recall[int(index)].load_state_dict(kept)
        self.forget_since(state["detectors"])

    def _loaded(self, original: Detector, left: list[dict[str, Any]]) -> Detector:
        """Return a copy with its saved state; what it cannot read, it does without."""
        detector = _copy(original)
        try:
            _load(detector, left)
        except Exception as error:  # noqa: BLE001 - a state may be of any version
            name = type(detector).__name__
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"gradguard: {name} starts afresh: {reason}", stacklevel=2)
            return _copy(original)
        return detector


def _ignore_rule(rule: str, kinds: Sequence[str]) -> tuple[str, str]:
    kind, _, glob = rule.partition(":")
    if kind not in kinds:
        msg = f"`ignore` must name a kind of finding, got {kind!r}. Kinds: {', '.join(kinds)}."
        raise ValueError(msg)
    return kind, glob or "*"


def _patience(detector: Detector) -> Mapping[str, int]:
    """Return what a detector asks of `Episodes`: patience per kind, if anything."""
    patience: Mapping[str, int] = getattr(detector, "patience_steps_by_kind", {})
    return patience


def _copy(detector: Detector) -> Detector:
    """Return a copy, or the detector itself when it holds what cannot be copied."""
    try:
        return copy.deepcopy(detector)
    except Exception:  # noqa: BLE001 - a detector may be anybody's code
        return detector


def _load(detector: Detector, left: list[dict[str, Any]]) -> None:
    """Give a detector the first state of its type, and take that off the list."""
    load = getattr(detector, "load_state_dict", None)
    for saved in left:
        if saved["type"] == type(detector).__name__:
            left.remove(saved)
            if load is not None:
                load(saved["state"])
            return


def _state(detector: Detector) -> Any:  # noqa: ANN401 - a detector's state is its own affair
    save = getattr(detector, "state_dict", None)
    return save() if save is not None else None
