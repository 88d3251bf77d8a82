"""Judge tapes: what was said of a training, and whether it was right.

In: frames of a tape and detectors, or the alarms of a published rule set. Out: one `Verdict` per
training, and `Score` over many. Nothing is trained in here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.detection.case import Case
from benchmarks.detection.loop import Tape
from benchmarks.detection.rules import RuleSet
from lightning_gradguard.detectors import Detector, default_detectors
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.inspector import Inspector

__all__ = ["Score", "Verdict", "alarms_of", "judge", "judge_by"]

Detectors = Callable[[], Sequence[Detector]]


@dataclass(frozen=True)
class Verdict:
    """What was said of one training.

    Attributes:
        case: The training, with its label.
        seed: Its seed.
        alarms: Kind, step and advice of each alarm, in order.
        steps: Optimizer steps that were judged.
        is_true: Whether the training did what its label says.
    """

    case: Case
    seed: int
    alarms: tuple[tuple[str, int, str], ...]
    steps: int
    is_true: bool = True

    @property
    def is_alarmed(self) -> bool:
        """Whether any alarm was raised; before the onset it is a false one."""
        return bool(self.alarms)

    @property
    def is_found(self) -> bool:
        """Whether a failing run got an alarm at its onset or later."""
        return not self.case.is_healthy and any(s >= self.case.onset for _, s, _ in self.alarms)

    @property
    def is_early(self) -> bool:
        """Whether the first alarm came before the fault."""
        return bool(self.alarms) and self.alarms[0][1] < self.case.onset

    @property
    def is_right_first(self) -> bool:
        """Whether an alarm at the first alarmed step names a right kind."""
        return any(
            kind in self.case.kinds and step == self.alarms[0][1] for kind, step, _ in self.alarms
        )

    @property
    def delay(self) -> float:
        """Steps from the onset to the first alarm after it; NaN without one."""
        late = [step - self.case.onset for _, step, _ in self.alarms if step >= self.case.onset]
        return float(late[0]) if late else math.nan


@dataclass(frozen=True)
class Score:
    """Counts over many trainings.

    Attributes:
        verdicts: One per training.
    """

    verdicts: tuple[Verdict, ...]

    @property
    def failing(self) -> tuple[Verdict, ...]:
        """Those of failing runs."""
        return tuple(v for v in self.verdicts if not v.case.is_healthy)

    @property
    def healthy(self) -> tuple[Verdict, ...]:
        """Those of healthy runs."""
        return tuple(v for v in self.verdicts if v.case.is_healthy)

    @property
    def found(self) -> int:
        """Failing runs with an alarm at the onset or later."""
        return sum(verdict.is_found for verdict in self.failing)

    @property
    def false_alarms(self) -> int:
        """Healthy runs with any alarm."""
        return sum(verdict.is_alarmed for verdict in self.healthy)

    @property
    def recall(self) -> float:
        """Share of failing runs that are found."""
        return self.found / max(1, len(self.failing))

    @property
    def precision(self) -> float:
        """Share of alarmed runs in which something was wrong by then."""
        wrong = self.false_alarms + sum(verdict.is_early for verdict in self.failing)
        right = sum(verdict.is_found and not verdict.is_early for verdict in self.failing)
        return right / max(1, right + wrong)

    @property
    def right_first(self) -> float:
        """Share of found runs whose first alarm names a right kind."""
        return sum(v.is_right_first for v in self.failing if v.is_found) / max(1, self.found)

    @property
    def early(self) -> int:
        """Failing runs with an alarm before the fault."""
        return sum(verdict.is_early for verdict in self.failing)

    @property
    def delays(self) -> list[float]:
        """Steps from onset to alarm, of those found."""
        return sorted(v.delay for v in self.failing if v.is_found)


def judge(case: Case, seed: int, tape: Tape, detectors: Detectors) -> Verdict:
    """Replay the frames of a tape through detectors."""
    alarms = tuple((f.kind, f.step, f.advice) for f in alarms_of(tape.frames, detectors))
    return Verdict(case, seed, alarms, len(tape.frames), _is_true(case, tape))


def judge_by(rules: RuleSet, case: Case, seed: int, tape: Tape) -> Verdict:
    """Replay the signals of a tape through a published rule set."""
    alarms = tuple((a.kind, a.step, a.rule) for a in rules.judge(tape.signals))
    return Verdict(case, seed, alarms, case.steps, _is_true(case, tape))


def _is_true(case: Case, tape: Tape) -> bool:
    return (tape.score >= case.level) == case.is_healthy


def alarms_of(
    frames: Sequence[Frame], detectors: Detectors = default_detectors
) -> tuple[Finding, ...]:
    """Return the alarms that a monitor would raise, those of openings and escalations."""
    inspector = Inspector(detectors())
    for frame in frames:
        inspector.update(frame)
    return tuple(f for f in inspector.findings if f.is_alarm and f.state != "resolved")
