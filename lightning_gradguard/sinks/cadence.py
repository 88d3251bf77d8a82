"""Which steps are written, so that the probe prepares what the sinks will ask for."""

from __future__ import annotations

__all__ = ["is_due"]


def is_due(step: int, every_n_steps: int) -> bool:
    """Return whether a step is written: Lightning's rule, the last of each ``every_n_steps``.

    Args:
        step: Optimizer step, from 0.
        every_n_steps: Spacing; 0 or less means never.

    Example:
        >>> [step for step in range(10) if is_due(step, 4)]
        [3, 7]
    """
    return every_n_steps > 0 and (step + 1) % every_n_steps == 0
