"""Which steps are written, so that the probe prepares what the sinks will ask for."""

from __future__ import annotations

__all__ = ["is_due"]


def is_due(step: int, every_n_steps: int, *, since: int | None = None) -> bool:
    """Return whether a step is written: Lightning's rule, the last of each ``every_n_steps``.

    Args:
        step: Optimizer step, from 0.
        every_n_steps: Spacing; 0 or less means never.
        since: The step that was looked at before this one, -1 for none: where not every step is
            looked at, the first after one that is due is taken in its place.

    Example:
        >>> [step for step in range(10) if is_due(step, 4)]
        [3, 7]
        >>> [step for step in range(0, 20, 2) if is_due(step, 4, since=step - 2)]
        [4, 8, 12, 16]
    """
    if every_n_steps <= 0:
        return False
    before = step - 1 if since is None else since
    return (step + 1) // every_n_steps > max(0, before + 1) // every_n_steps
