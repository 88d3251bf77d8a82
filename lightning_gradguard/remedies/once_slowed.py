"""A remedy that waits until lower learning rates have not helped.

In: any remedy. Out: nothing until the rates have been cut far enough, then what the remedy
decides. What healthy runs never need costs them nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, Moment, Remedy
from lightning_gradguard.remedies.traits import acts_of, acts_on_findings

__all__ = ["OnceSlowed"]


class OnceSlowed:
    """Let a remedy act from when the learning rate has been cut below a share of the user's.

    It goes on when the rate heals. All ranks begin at the same step, since they agree on rates.

    Args:
        remedy: What to do from then on.
        below: The share, in ``(0, 1)``.

    Raises:
        ValueError: ``below`` is out of range.
        TypeError: ``remedy`` is not one.

    Example:
        >>> from lightning_gradguard.remedies.clip_norm import ClipNorm
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> remedy = OnceSlowed(ClipNorm(1.0))
        >>> remedy.decide(moment_of([3.0, 4.0]))
        ()
        >>> remedy.decide(moment_of([3.0, 4.0], lr_factor=0.01))[0].factors.item()
        0.2
    """

    def __init__(self, remedy: Remedy, *, below: float = 0.1) -> None:
        options.check_parts("remedy", [remedy], method="decide")
        options.check_fraction(below=below)
        self.remedy, self.below = remedy, below
        self._has_begun = False

    @property
    def acts(self) -> frozenset[str]:
        """What the remedy may do."""
        return acts_of(self.remedy)

    @property
    def acts_on_findings(self) -> bool:
        """Whether the remedy looks at what the monitor found."""
        return acts_on_findings(self.remedy)

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Ask the remedy, once the rate is low."""
        self._has_begun = self._has_begun or moment.lr_factor < self.below
        return self.remedy.decide(moment) if self._has_begun else ()

    def state_dict(self) -> dict[str, Any]:
        """Return whether it has begun, and what the remedy keeps."""
        save = getattr(self.remedy, "state_dict", None)
        return {"has_begun": self._has_begun, "remedy": None if save is None else save()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._has_begun = state["has_begun"]
        load = getattr(self.remedy, "load_state_dict", None)
        if load is not None and state["remedy"] is not None:
            load(state["remedy"])
