"""What a remedy may do, so that nothing is paid for what cannot happen, and nothing is done twice.

In: a remedy. Out: what it says of itself; one that says nothing may do everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar

from lightning_gradguard.remedies.base import (
    Clamp,
    Decision,
    GoBack,
    LearningRate,
    Remedy,
    Scale,
    ScaleUnits,
    Skip,
    Stop,
)

__all__ = ["ACTS", "acts_of", "acts_on_findings", "check_allowed", "find", "may_skip", "unwrapped"]

T = TypeVar("T")

ACTS: Final[Mapping[type[Decision], str]] = {
    Scale: "clip",
    ScaleUnits: "clip",
    Clamp: "clip",
    Skip: "skip",
    LearningRate: "learning rate",
    GoBack: "rollback",
    Stop: "stop",
}
"""What each decision does, in the word that remedies use for it."""

_EVERYTHING: Final = frozenset(ACTS.values())


def acts_of(remedy: object) -> frozenset[str]:
    """Return what a remedy may do, by its attribute ``acts``.

    Raises:
        ValueError: It says something that nobody can do.

    Example:
        >>> from lightning_gradguard.remedies.rollback import Rollback
        >>> sorted(acts_of(Rollback()))
        ['learning rate', 'rollback']
    """
    acts = getattr(remedy, "acts", _EVERYTHING)
    if not isinstance(acts, (frozenset, set)) or not acts <= _EVERYTHING:
        known = ", ".join(map(repr, sorted(_EVERYTHING)))
        msg = f"`acts` of {type(remedy).__name__} must be a set of some of {known}, got {acts!r}."
        raise ValueError(msg)
    return frozenset(acts)


def check_allowed(decision: object, remedy: Remedy) -> None:
    """Raise unless it is a decision, and one that its remedy said it may make.

    Raises:
        TypeError: It is no decision.
        ValueError: The remedy said that it does not do such things.
    """
    act = next((act for kind, act in ACTS.items() if isinstance(decision, kind)), None)
    if act is None:
        names = ", ".join(kind.__name__ for kind in ACTS)
        msg = f"A remedy must return {names}, got {decision!r}."
        raise TypeError(msg)
    if act not in acts_of(remedy):
        said = sorted(acts_of(remedy))
        msg = f"`acts` must have {act!r} for a remedy that returns {decision!r}, got {said!r}."
        raise ValueError(msg)


def may_skip(remedy: Remedy) -> bool:
    """Whether it may leave steps out.

    Example:
        >>> from lightning_gradguard.remedies.clip_norm import ClipNorm
        >>> may_skip(ClipNorm())
        False
    """
    return "skip" in acts_of(remedy)


def acts_on_findings(remedy: Remedy) -> bool:
    """Whether it looks at anything in which ranks may differ, by its own attribute."""
    return bool(getattr(remedy, "acts_on_findings", True))


def find(remedies: Sequence[Remedy], kind: type[T]) -> list[T]:
    """Return the remedies of a kind, also those that others wrap."""
    return [r for remedy in remedies for r in unwrapped(remedy) if isinstance(r, kind)]


def unwrapped(remedy: object) -> Iterator[object]:
    """Go through a remedy, what it wraps, and what that wraps."""
    while remedy is not None:
        yield remedy
        remedy = getattr(remedy, "remedy", None)
