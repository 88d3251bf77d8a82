"""The gradient scaler, as it was before a step that is left out.

In: a scaler, and whether a step is left out. Out: its factor put back. It lowers its factor after
numbers that are not finite, and a batch that never came has shown none.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_gradguard.actions.states import Stateful

__all__ = ["ScalerKeeper"]


class ScalerKeeper:
    """Keep a scaler's state over a step that is left out.

    Args:
        scaler: The scaler, or None where there is none.

    Cost:
        Where there is a scaler, asks the device for the flag.
    """

    def __init__(self, scaler: Stateful | None) -> None:
        self._scaler = scaler
        self._state: Any = None

    def note(self, flag: Tensor | None) -> None:
        """Keep the state, before the scaler learns of this step, if a flag says so."""
        if self._scaler is None or flag is None or self._state is not None:
            return  # of several steps in one batch, the state before the first counts
        if bool(flag):
            self._state = self._scaler.state_dict()

    def restore_(self) -> None:
        """Put it back, after the scaler has learned of the step."""
        if self._scaler is not None and self._state is not None:
            self._scaler.load_state_dict(self._state)
        self._state = None
