"""Whether training advances: a heartbeat for those outside, an alarm for those inside.

In: how often training advanced, and the time. Out: whether to ping, and whether it stands still.
Knows no thread and no clock of its own.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Heartbeat", "Watchdog"]


class Watchdog:
    """Notice that nothing goes on any more, and that it does again.

    Args:
        stalled_after_seconds: Without an advance for so long, training stands still. It is not
            counted before the first advance: loading and compiling take their time.

    Example:
        >>> dog = Watchdog(60.0)
        >>> looks = [(0, 0), (0, 99), (1, 100), (1, 161), (2, 170)]
        >>> [dog.look(beats, now=now) for beats, now in looks]
        [None, None, None, 'stalled', 'resumed']
    """

    def __init__(self, stalled_after_seconds: float) -> None:
        self.limit_seconds = stalled_after_seconds
        self._beats, self._since = 0, 0.0
        self._is_stalled = False

    def look(self, beats: int, *, now: float) -> Literal["stalled", "resumed"] | None:
        """Compare with the last look.

        Args:
            beats: How often training has advanced.
            now: Seconds, on a clock that never goes back.
        """
        if beats != self._beats:
            was_stalled, self._is_stalled = self._is_stalled, False
            self._beats, self._since = beats, now
            return "resumed" if was_stalled else None
        if self._is_stalled or beats == 0 or now - self._since <= self.limit_seconds:
            return None
        self._is_stalled = True
        return "stalled"


class Heartbeat:
    """Say when to ping: every so often, while training advances.

    Args:
        every_seconds: From one ping to the next.

    Example:
        >>> heart = Heartbeat(60.0)
        >>> looks = [(0, 0), (1, 1), (2, 2), (3, 70), (3, 140)]
        >>> [heart.is_due(beats, now=now) for beats, now in looks]
        [False, True, False, True, False]
    """

    def __init__(self, every_seconds: float) -> None:
        self._every = every_seconds
        self._beats, self._next = 0, 0.0

    def is_due(self, beats: int, *, now: float) -> bool:
        """Whether training advanced since the last ping, and that was long enough ago."""
        if beats == self._beats or now < self._next:
            return False
        self._beats, self._next = beats, now + self._every
        return True
