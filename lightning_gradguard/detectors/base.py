"""What a detector is.

In: frames, one optimizer's, in order. Out: findings for as long as the evidence holds; when to
speak and when to stop is for `episodes` to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame

__all__ = ["Detector"]


@runtime_checkable
class Detector(Protocol):
    """Anything with this one method.

    Optional attributes: ``patience_steps_by_kind``, a mapping from kind to the number of
    observed steps in a row that must show evidence before it is reported; ``state_dict()`` and
    ``load_state_dict(state)``, plain JSON types, when there is state to save.

    Example:
        >>> from lightning_gradguard.findings import Severity
        >>> class LargeLoss:
        ...     def update(self, frame):
        ...         if frame.loss is None or frame.loss < 100.0:
        ...             return ()
        ...         return [Finding(kind="large_loss", severity=Severity.WARNING,
        ...                         step=frame.step, message=f"loss is {frame.loss:.3g}")]
        >>> isinstance(LargeLoss(), Detector)
        True
    """

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return what is wrong with this frame, judged against what came before."""
        ...
