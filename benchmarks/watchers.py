"""The monitor and its peers, as lanes that can be chosen by name.

In: a name. Out: a `Watcher`: what it is, how often it looks, and a function that makes its
callbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytorch_lightning as pl

from benchmarks import peers
from benchmarks.shares import Recurring
from lightning_gradguard import GradientMonitor

__all__ = ["BASE", "TWIN", "WATCHERS", "Watcher"]

_NOTED_EVERY: Final = 50
"""Lightning's default of ``log_every_n_steps``, to which rare steps are spread."""


@dataclass(frozen=True)
class Watcher:
    """Something that looks at gradients, or nothing.

    Attributes:
        name: Its name on the command line.
        title: What it is.
        gives: What it computes at every step.
        callbacks: Makes its callbacks, told a folder for what they write.
        is_heavy: Whether it takes so long that fewer steps must do.
        needs: The package that must be installed for it.
        looks_every: Steps between two that cost more than the others, by their own rhythm.
        stride: Steps between two that are looked at.
        writes_rarely: Whether it writes at ``log_every_n_steps`` and not at every step.
    """

    name: str
    title: str
    gives: str
    callbacks: Callable[[Path], list[pl.Callback]]
    is_heavy: bool = False
    needs: str = ""
    looks_every: int = 0
    stride: int = 1
    writes_rarely: bool = False

    def log_every(self, usual: int) -> int:
        """Return the lane's ``log_every_n_steps``, large enough for its stride.

        Args:
            usual: That of the model.
        """
        return usual if self.stride == 1 else _NOTED_EVERY

    def recurring(self, log_every: int) -> tuple[Recurring, ...]:
        """Return which steps cost more than the others, frequent ones first.

        Args:
            log_every: The lane's ``log_every_n_steps``.
        """
        kinds = []
        if self.looks_every:
            kinds.append(Recurring(self.looks_every, 0, self.looks_every))
        if self.writes_rarely:
            # What is looked at more rarely is written at the first look when it is due.
            offset = log_every - 1 if self.stride == 1 else 0
            kinds.append(Recurring(log_every, offset, _NOTED_EVERY))
        return tuple(sorted(kinds, key=lambda kind: kind.period))


BASE: Final = Watcher("base", "nothing", "", lambda _: [])
TWIN: Final = Watcher("base2", "nothing, again", "the noise of this page", lambda _: [])

WATCHERS: Final = (
    Watcher(
        "monitor",
        "`GradientMonitor()`",
        "all its statistics, judged; written every 50",
        lambda _: [GradientMonitor()],
        # One step in ten has a profile over time, where there are recurrent layers.
        looks_every=10,
        writes_rarely=True,
    ),
    Watcher(
        "monitor10",
        "`GradientMonitor(every_n_steps=10)`",
        "the same at one step in ten",
        lambda _: [GradientMonitor(every_n_steps=10)],
        looks_every=10,
        stride=10,
        writes_rarely=True,
    ),
    Watcher(
        "composer",
        "Composer's `OptimizerMonitor`, its algorithm",
        "L2 of gradient, parameter, moment, update; written every 50",
        lambda _: [peers.NormsOneByOne()],
        writes_rarely=True,
    ),
    Watcher(
        "grad_norm",
        "Lightning's `grad_norm` and `log_dict`",
        "L2; written every 50",
        lambda _: [peers.LightningGradNorm()],
        writes_rarely=True,
    ),
    Watcher(
        "ignite_scalar",
        "ignite's `GradsScalarHandler`",
        "L2, written",
        lambda home: [peers.Ignite("GradsScalarHandler", home)],
        needs="ignite",
    ),
    Watcher(
        "ignite_hist",
        "ignite's `GradsHistHandler`",
        "histogram, written",
        lambda home: [peers.Ignite("GradsHistHandler", home)],
        is_heavy=True,
        needs="ignite",
    ),
    Watcher(
        "add_histogram",
        "a loop of `add_histogram`",
        "histogram, written",
        lambda _: [peers.AddHistogram()],
        is_heavy=True,
    ),
    Watcher(
        "wandb_gradients",
        '`wandb.watch(log="gradients")`, offline',
        "histogram, written",
        lambda home: [peers.Wandb("gradients", home)],
        is_heavy=True,
        needs="wandb",
    ),
    Watcher(
        "wandb_all",
        '`wandb.watch(log="all")`, offline',
        "histograms of gradient and parameter, written",
        lambda home: [peers.Wandb("all", home)],
        is_heavy=True,
        needs="wandb",
    ),
)
