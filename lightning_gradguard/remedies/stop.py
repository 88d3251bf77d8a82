"""End a training that cannot be saved.

In: faults that go on. Out: the wish to stop, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gradguard import options
from lightning_gradguard.remedies.base import Decision, Moment, Stop
from lightning_gradguard.remedies.faults import as_kinds, describe, fresh_faults

__all__ = ["StopTraining"]


class StopTraining:
    """Stop on a fault, after the step in which it is known.

    Args:
        kinds: Kinds of finding to act on.
        as_error: Whether to raise `TrainingStoppedError` instead of ending the fit quietly.

    Raises:
        ValueError: There is no such kind.

    Example:
        >>> from lightning_gradguard.remedies.testing import moment_of, trouble
        >>> faults = [trouble("nonfinite", step=4)]
        >>> StopTraining("nonfinite").decide(moment_of([1.0], step=5, episodes=faults))
        [Stop(why='nonfinite since step 4: trouble', as_error=False)]
    """

    acts = frozenset({"stop"})

    def __init__(self, kinds: Sequence[str] | str, *, as_error: bool = False) -> None:
        options.check_bool(as_error=as_error)
        self.kinds, self.as_error = as_kinds(kinds), as_error

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Stop while the fault goes on."""
        faults = fresh_faults(moment, self.kinds, 0)
        return [Stop(describe(faults[0]), self.as_error)] if faults else ()
