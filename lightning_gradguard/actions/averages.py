"""How many weights are in an average that a callback keeps.

In: a callback that averages weights and counts them beside the average, as Lightning's
`StochasticWeightAveraging` does. Out: the count, as something with a state to go back to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Count"]


@dataclass(frozen=True)
class Count:
    """The count of one callback; equal to others of the same.

    Attributes:
        callback: Its ``n_averaged`` is a tensor, or None before the first average.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> average = SimpleNamespace(n_averaged=None)
        >>> then = Count(average).state_dict()
        >>> average.n_averaged = torch.tensor(3)
        >>> Count(average).load_state_dict(then)
        >>> average.n_averaged
        tensor(0)
    """

    callback: Any

    def state_dict(self) -> dict[str, int]:
        """Return it."""
        count = self.callback.n_averaged
        return {"n_averaged": 0 if count is None else int(count)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take it; an average that has not begun has none to take."""
        if self.callback.n_averaged is not None:
            self.callback.n_averaged.fill_(state["n_averaged"])
