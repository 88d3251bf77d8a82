"""From outcomes to figures.

In: the score of each training. Out: shares of what is possible, runs rescued, cost on healthy
ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.interventions.treatments import NONE

__all__ = ["RESCUED", "Figures", "Result", "best", "shares_by_seed"]

RESCUED = 0.9


@dataclass(frozen=True)
class Result:
    """All trainings of one case.

    Attributes:
        name: Of the case.
        is_healthy: Whether it is a control.
        chance: Score of an answer that does not look.
        ceiling: Score of the best cure by hand, on the mean of all seeds; for a control, of
            no treatment.
        cure: That cure, in words.
        scores: For each treatment, the score of each seed.
        acts: What the automatic policy did in the first seed.
    """

    name: str
    is_healthy: bool
    chance: float
    ceiling: float
    cure: str
    scores: Mapping[str, Sequence[float]]
    acts: tuple[str, ...] = ()

    def shares(self, treatment: str) -> list[float]:
        """Return each seed's share of the ceiling, in ``[0, 1]``.

        0 is chance. A score above the ceiling counts as 1, so that luck in one training does not
        make up for failure in another.
        """
        span = self.ceiling - self.chance
        raw = [(score - self.chance) / span for score in self.scores[treatment]]
        return [min(1.0, max(0.0, share)) for share in raw]

    def change(self, treatment: str) -> float:
        """Return what a treatment changes in the score, relative to none; negative is a loss."""
        before = fmean(self.scores[NONE])
        return fmean(self.scores[treatment]) / before - 1.0


@dataclass(frozen=True)
class Figures:
    """What one treatment does to all trainings.

    Attributes:
        share: Mean share of the ceiling, over failing trainings.
        rescued: Failing runs that reach nine tenths of the ceiling.
        failing: Runs that do not reach it without treatment.
        spoilt: Runs that reach it without treatment only.
        change: Mean change of the score of healthy ones.
        worst: The same of the healthy one that lost most.
    """

    share: float
    rescued: int
    failing: int
    spoilt: int
    change: float
    worst: float

    @classmethod
    def of(cls, results: Sequence[Result], treatment: str) -> Figures:
        """Return the figures of a treatment."""
        troubled = [result for result in results if not result.is_healthy]
        changes = [result.change(treatment) for result in results if result.is_healthy]
        pairs = [
            (before >= RESCUED, after >= RESCUED)
            for result in troubled
            for before, after in zip(result.shares(NONE), result.shares(treatment), strict=True)
        ]
        return cls(
            share=fmean(fmean(result.shares(treatment)) for result in troubled),
            rescued=pairs.count((False, True)),
            failing=sum(not before for before, _ in pairs),
            spoilt=pairs.count((True, False)),
            change=fmean(changes),
            worst=min(changes),
        )


def shares_by_seed(results: Sequence[Result], treatment: str) -> list[float]:
    """Return the mean share of the ceiling over failing trainings, for each seed."""
    shares = [result.shares(treatment) for result in results if not result.is_healthy]
    return [fmean(of_one_seed) for of_one_seed in zip(*shares, strict=True)]


def best(scores: Mapping[str, Sequence[float]]) -> tuple[str, float]:
    """Return what has the highest mean score, and that score.

    Example:
        >>> best({"slower": [0.5, 0.7], "clipped": [0.9, 0.1]})
        ('slower', 0.6)
    """
    name = max(scores, key=lambda name: fmean(scores[name]))
    return name, fmean(scores[name])
