"""From all findings of a run to what is worth saying at its end.

In: findings. Out: a `Summary`: one entry per fault, its worst moment, causes before symptoms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_gradguard import schema
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame

__all__ = ["Summary", "summarise"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """The whole run, at its end.

    Attributes:
        faults: The worst finding of each alarm that was raised, causes before symptoms.
        notices: The same for what is no alarm.
        ended: Episodes among ``faults`` and ``notices`` that were over before the run was.
        observed_steps: Optimizer steps that were looked at.
        steps: Optimizer steps that were made.
        last_frame: The last step that was looked at, or None.
        unchecked: What could not be looked at, one sentence each.
        acts: What a guard did in all, one sentence each.
        stopped: Why watching ended before the run did or never began; None when it did not.
        amp_overflows: Steps that a gradient scaler skipped since the gradient overflowed.
        noise_scales: Gradient noise scale in batches, for each optimizer where it is known.
        interval: Optimizer steps from one look to the next, at the end.
        overhead_ms: Mean time that the monitor itself took per step, in milliseconds.
        step_ms: Typical time of a whole step, in milliseconds.
    """

    faults: tuple[Finding, ...]
    notices: tuple[Finding, ...]
    ended: frozenset[int] = frozenset()
    observed_steps: int = 0
    steps: int = 0
    last_frame: Frame | None = None
    unchecked: Sequence[str] = ()
    acts: Sequence[str] = ()
    stopped: str | None = None
    amp_overflows: int = 0
    noise_scales: Mapping[int, float] = field(default_factory=dict)
    interval: int = 1
    overhead_ms: float = float("nan")
    step_ms: float = float("nan")

    @property
    def is_healthy(self) -> bool:
        """Whether steps were looked at to the end and no alarm was raised."""
        return self.observed_steps > 0 and not self.faults and self.stopped is None

    def __str__(self) -> str:
        """Return the summary as plain text."""
        # Imported late: the text is made from this record, not the other way round.
        from lightning_gradguard.report.text import summary_lines

        return "\n".join(summary_lines(self))


def summarise(
    findings: Iterable[Finding],
    *,
    observed_steps: int,
    steps: int,
    **run: Any,  # noqa: ANN401 - the other fields of `Summary`, as they are
) -> Summary:
    """Return the summary of a run.

    Args:
        findings: Onsets, escalations and ends, oldest first.
        observed_steps: Optimizer steps that were looked at.
        steps: Optimizer steps that were made.
        run: Any other field of `Summary`.
    """
    worst: dict[int, Finding] = {}
    ended: set[int] = set()
    for finding in findings:
        if finding.state == "resolved":
            ended.add(finding.episode_id)
            worst.setdefault(finding.episode_id, finding)
        else:
            worst[finding.episode_id] = finding  # an escalation is worse than the onset
    ranked = sorted(worst.values(), key=lambda f: (f.since_step, _rank(f.kind)))
    return Summary(
        faults=tuple(f for f in ranked if f.is_alarm),
        notices=tuple(f for f in ranked if not f.is_alarm),
        ended=frozenset(ended),
        observed_steps=observed_steps,
        steps=steps,
        **run,
    )


def _rank(kind: str) -> int:
    return schema.KINDS.index(kind) if kind in schema.KINDS else len(schema.KINDS)
