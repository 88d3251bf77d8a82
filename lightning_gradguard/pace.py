"""Which optimizer steps are looked at.

In: the number of a step. Out: whether to look at it in full, to glance at it, or to let it
pass. Counts steps of each optimizer apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn

from lightning_gradguard.governor import Governor
from lightning_gradguard.probe import Probe
from lightning_gradguard.transfer import Transfer

__all__ = ["Pace"]


class Pace:
    """Decide what to look at.

    Args:
        every_n_steps: Look at one optimizer step in so many; nothing in between.
        governor: Stretches that interval; what it leaves out is glanced at. None never does.

    Attributes:
        looked: Whether anything was looked at in this step.
    """

    def __init__(self, every_n_steps: int = 1, governor: Governor | None = None) -> None:
        self.looked = False
        self._every_n_steps, self._governor = every_n_steps, governor
        self._looks: dict[int, tuple[int, tuple[int, int], int]] = {}
        self._glances: dict[int, Transfer] = {}

    @property
    def interval(self) -> int:
        """Optimizer steps from one full look to the next: a multiple of what was asked for."""
        wanted = 1 if self._governor is None else self._governor.interval
        return -(-wanted // self._every_n_steps) * self._every_n_steps

    def is_looked_at(self, step: int) -> bool:
        """Whether a step is looked at in full."""
        return step % self.interval == 0

    def look(self, step: int, optimizer_index: int, batch: tuple[int, int] = (0, 0)) -> int:
        """Take note of a full look, and return the step of the one before, -1 for none.

        A line search looks several times at one step within a batch: before it comes what came
        before the first. In another batch, the same step is one that a scaler refused.
        """
        self.looked = True
        last, last_batch, before = self._looks.get(optimizer_index, (-1, (-1, -1), -1))
        if (last, last_batch) != (step, batch):
            before = last
        self._looks[optimizer_index] = (step, batch, before)
        return before

    def looks_broken(
        self,
        probe: Probe,
        parameters: Iterable[nn.Parameter],
        step: int,
        optimizer_index: int,
        loss: Tensor | None = None,
    ) -> bool:
        """Glance at a step that the governor left out: broken numbers are never missed.

        On a device the answer arrives a step later: what broke is still broken then, but a step
        that a gradient scaler left out in between is not counted.
        """
        if self._governor is None or step % self._every_n_steps:
            return False
        earlier = self._glances.pop(optimizer_index, None)
        if earlier is not None and not math.isfinite(float(earlier.arrive()["sum"])):
            return True
        answer = probe.is_finite(parameters, optimizer_index)
        if isinstance(answer, Tensor):
            total = answer if loss is None else answer + loss.to(answer)
            self._glances[optimizer_index] = Transfer({"sum": total})
            return False
        return not answer or (loss is not None and not math.isfinite(float(loss)))

    def end_step(self, timing: tuple[float, float] | None) -> None:
        """Tell the governor what a step took.

        Args:
            timing: What `Stopwatch.end_step` returned.
        """
        if timing is not None and self._governor is not None:
            spent, step = timing
            self._governor.note(spent=spent, step=step, looked=self.looked)
        self.looked = False
