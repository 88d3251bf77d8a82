"""Who has not got an alert yet, where one channel tells several people.

In: an alert, and who did not take it. Out: those to try again, or what is to be told. So nobody
gets an alert again because another's server was away.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import PartialError, RefusedError

__all__ = ["Several"]


class Several:
    """Remember, from one try of an alert to the next, who is left.

    Example:
        >>> from lightning_gradguard.findings import Severity
        >>> alert = Alert(kind="k", state="opened", severity=Severity.ERROR, message="", id="a1")
        >>> several = Several()
        >>> several.left(alert, 3)
        (1, 2, 3)
        >>> several.settle(3, later={2: "away"}, never={})
        Traceback (most recent call last):
        OSError: address 2 of 3: away
        >>> several.left(alert, 3)
        (2,)
    """

    def __init__(self) -> None:
        self._alert = ""
        self._left: tuple[int, ...] = ()
        self._refused: dict[int, str] = {}

    def left(self, alert: Alert, count: int) -> tuple[int, ...]:
        """Return the positions, from 1 on, of those who have not got it.

        Args:
            alert: What is sent. One that has no ``id`` is new each time.
            count: How many there are.
        """
        if not alert.id or alert.id != self._alert:
            self._alert, self._refused = alert.id, {}
            self._left = tuple(range(1, count + 1))
        return self._left

    def settle(self, count: int, *, later: Mapping[int, str], never: Mapping[int, str]) -> None:
        """Take note of how the try went that `left` was asked for.

        Args:
            count: How many there are.
            later: Who may take it another time, by position, and why not now.
            never: Who will never take it, and why not.

        Raises:
            OSError: There is somebody to try again.
            RefusedError: Nobody took it, and nobody will.
            PartialError: Some took it, and the others never will.
        """
        self._refused.update(never)
        if later:
            self._left = tuple(later)
            raise OSError(_named(later, count))
        self._alert = ""
        if self._refused:
            kind = RefusedError if len(self._refused) == count else PartialError
            raise kind(_named(self._refused, count))


def _named(positions: Mapping[int, str], count: int) -> str:
    return "; ".join(f"address {one} of {count}: {why}" for one, why in sorted(positions.items()))
