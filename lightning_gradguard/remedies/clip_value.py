"""Clip by value: each entry apart.

In: gradients. Out: the largest magnitude an entry may have. It changes the direction.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Clamp, Decision, Moment

__all__ = ["ClipValue"]


class ClipValue:
    """Keep the magnitude of every entry at or below a fixed limit.

    Args:
        max_value: The limit; ``> 0``.

    Raises:
        ValueError: ``max_value`` is not positive.

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> ClipValue(0.5).decide(moment_of([3.0, 4.0]))[0].limit
        0.5
    """

    acts = frozenset({"clip"})
    acts_on_findings = False

    def __init__(self, max_value: float = 1.0) -> None:
        options.check_positive(max_value=max_value)
        self.max_value = max_value

    def decide(self, moment: Moment) -> Sequence[Decision]:  # noqa: ARG002 - the protocol's
        """Clamp all entries."""
        return [Clamp(self.max_value, "value")]
