"""Whether a decision is about what is there.

In: a decision, and the parameters that it was made for. Out: nothing, or an error, before anything
is written.
"""

from __future__ import annotations

from collections.abc import Iterable

from lightning_gradguard.remedies.base import (
    Clamp,
    Decision,
    LearningRate,
    Scale,
    ScaleUnits,
    sizes_of,
)
from lightning_gradguard.remedies.gradients import Roster

__all__ = ["check_fit"]


def check_fit(decision: Decision, roster: Roster) -> None:
    """Raise unless a decision is about what is there.

    Raises:
        ValueError: It names members or groups that are not there, or has a factor too many.
    """
    size = len(roster.members)
    if isinstance(decision, Scale) and decision.factors.dim() and len(decision.factors) != size:
        msg = f"`factors` must be one for all or one per member ({size}), got {decision.factors!r}."
        raise ValueError(msg)
    if isinstance(decision, ScaleUnits):
        _check_places("members", decision.factors, size)
        _check_units(decision, roster)
    elif isinstance(decision, Clamp):
        _check_places("members", decision.members or (), size)
    elif isinstance(decision, LearningRate):
        _check_places("groups", decision.groups or (), roster.num_groups)


def _check_places(what: str, named: Iterable[int], size: int) -> None:
    if strangers := [place for place in named if place not in range(size)]:
        msg = f"`{what}` must be among {size} positions, got {strangers!r}."
        raise ValueError(msg)


def _check_units(decision: ScaleUnits, roster: Roster) -> None:
    sizes = sizes_of(decision.factors)
    wanted = {place: roster.members[place].num_units for place in sizes}
    if sizes != wanted:
        msg = f"`factors` must be one per output unit, {wanted!r} by member, got {sizes!r}."
        raise ValueError(msg)
