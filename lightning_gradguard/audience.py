"""Those who are told: sinks, and the user's own function.

In: events. Out: nothing. One that raises is switched off alone, named once, and listed in the
summary; the others go on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from lightning_gradguard.events import Event
from lightning_gradguard.findings import Finding
from lightning_gradguard.sinks.base import Sink

__all__ = ["Audience"]


class Audience:
    """Tell everybody.

    Args:
        sinks: Told of everything.
        on_finding: Called with each new finding.

    Attributes:
        step: The latest optimizer step, for these sentences.
    """

    def __init__(
        self, sinks: Sequence[Sink] = (), on_finding: Callable[[Finding], object] | None = None
    ) -> None:
        self._muted: list[str] = []
        self.step = 0
        self._sinks = list(sinks)
        self._on_finding = on_finding

    @property
    def muted(self) -> list[str]:
        """What was switched off, or could not be told, one sentence each."""
        troubles = [text for sink in self._sinks for text in getattr(sink, "troubles", ())]
        return [*self._muted, *troubles]

    def tell(self, event: Event) -> None:
        """Hand an event to every sink, and a finding to the user's function."""
        for sink in tuple(self._sinks):
            try:
                sink.emit(event)
            except Exception as error:  # noqa: BLE001 - a sink may be anybody's code
                self._sinks.remove(sink)
                self._mute(type(sink).__name__, error)
        if isinstance(event, Finding) and self._on_finding is not None:
            try:
                self._on_finding(event)
            except Exception as error:  # noqa: BLE001 - anybody's code
                self._on_finding = None
                self._mute("on_finding", error)

    def _mute(self, name: str, error: Exception) -> None:
        reason = f"{name} was switched off at step {self.step}: {type(error).__name__}: {error}"
        self._muted.append(reason)
        warnings.warn(f"gradguard: {reason}", stacklevel=3)
