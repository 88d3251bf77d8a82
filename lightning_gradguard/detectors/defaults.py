"""The detectors that everybody gets, and the one dial that they share."""

from __future__ import annotations

from typing import Final, Literal, get_args

from lightning_gradguard.detectors.base import Detector
from lightning_gradguard.detectors.clip_dominated import ClipDominated
from lightning_gradguard.detectors.dead import Dead
from lightning_gradguard.detectors.diverging import Diverging
from lightning_gradguard.detectors.exploding import Exploding
from lightning_gradguard.detectors.fading import Fading
from lightning_gradguard.detectors.forgetting import Forgetting
from lightning_gradguard.detectors.growth import Growth
from lightning_gradguard.detectors.inward import Inward
from lightning_gradguard.detectors.nonfinite import NonFinite
from lightning_gradguard.detectors.not_learning import NotLearning
from lightning_gradguard.detectors.oversized import Oversized
from lightning_gradguard.detectors.saturated import Saturated
from lightning_gradguard.detectors.scheduler_drift import SchedulerDrift
from lightning_gradguard.detectors.shallow import Shallow
from lightning_gradguard.detectors.slow import Slow
from lightning_gradguard.detectors.spike import Spike
from lightning_gradguard.detectors.unused_parameters import UnusedParameters
from lightning_gradguard.detectors.vanishing import Vanishing

__all__ = ["SENSITIVITIES", "Sensitivity", "default_detectors"]

Sensitivity = Literal["low", "normal", "high"]
SENSITIVITIES: Final[tuple[str, ...]] = get_args(Sensitivity)

_STRICTNESS: Final = {"low": 1.5, "normal": 1.0, "high": 0.7}
"""By what distances in factors of ten and patience are multiplied."""


def default_detectors(sensitivity: Sensitivity = "normal") -> list[Detector]:
    """Return a fresh set of detectors: one for each kind of fault.

    Args:
        sensitivity: ``"normal"`` is quiet in healthy runs; ``"low"`` asks for half as much again,
            in factors of ten and in patience, and ``"high"`` for three tenths less. What each
            means in false alarms per 10,000 healthy steps is measured in
            ``benchmarks/results/detection.md``.

    Raises:
        ValueError: There is no such sensitivity.

    Example:
        >>> len(default_detectors("low")) == len(default_detectors("high"))
        True
    """
    if sensitivity not in _STRICTNESS:
        choices = ", ".join(map(repr, SENSITIVITIES))
        msg = f"`sensitivity` must be one of {choices}, got {sensitivity!r}."
        raise ValueError(msg)
    by = _STRICTNESS[sensitivity]
    patience = round(10 * by)
    return [
        NonFinite(),
        Exploding(
            update=Oversized(max_update_ratio=10.0 ** (by - 1.0)),
            inward=Inward(limit_decades=2.0 * by),
            growth=Growth(limit_decades=2.0 * by),
        ),
        Vanishing(
            depth=Shallow(limit_decades=4.0 * by, mild_decades=2.0 * by),
            late=Fading(limit_decades=1.5 * by),
            time=Forgetting(limit_decades=4.0 * by),
            patience_steps=patience,
        ),
        Dead(limit_share=min(1.0, 0.95 * by), mild_share=0.6 * by),
        Saturated(limit_share=min(1.0, 0.5 * by)),
        Diverging(
            excess=0.5 * by, min_update_ratio=0.05 * 10.0 ** (by - 1.0), patience_steps=patience
        ),
        NotLearning(slow=Slow(min_speed=2e-4 * 10.0 ** (1.0 - by)), patience_steps=patience),
        Spike(z_threshold=6.0 * by),
        UnusedParameters(),
        ClipDominated(),
        SchedulerDrift(),
    ]
