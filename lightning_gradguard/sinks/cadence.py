"""Which steps are written, so that the probe prepares what the sinks will ask for."""

from __future__ import annotations

__all__ = ["is_due"]


def is_due(step: int, every_n_steps: int, *, stride: int = 1) -> bool:
    """Return whether a step is written: Lightning's rule, the last of each ``every_n_steps``.

    Args:
        step: Optimizer step, from 0.
        every_n_steps: Spacing; 0 or less means never.
        stride: Spacing of the steps that are looked at; the first at or after one that is due
            is taken in its place.

    Example:
        >>> [step for step in range(10) if is_due(step, 4)]
        [3, 7]
        >>> [step for step in range(0, 20, 2) if is_due(step, 4, stride=2)]
        [4, 8, 12, 16]
    """
    if every_n_steps <= 0:
        return False
    return (step + 1) // every_n_steps > max(0, step + 1 - stride) // every_n_steps
