"""What a sink is.

In: events. Out: whatever people look at. A sink never influences training; one that raises is
switched off with a warning, and training goes on.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lightning_gradguard.events import Event

__all__ = ["Sink"]


@runtime_checkable
class Sink(Protocol):
    """Anything with this one method.

    Example:
        >>> from lightning_gradguard.findings import Finding
        >>> class Kinds:
        ...     def __init__(self):
        ...         self.seen = set()
        ...     def emit(self, event):
        ...         if isinstance(event, Finding):
        ...             self.seen.add(event.kind)
        >>> isinstance(Kinds(), Sink)
        True
    """

    def emit(self, event: Event) -> None:
        """Take one event; called on rank zero, in the training thread, so be quick."""
        ...
