"""Runs without files, with the interface of the reader of histories."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_gradguard import schema
from lightning_gradguard.audit import Action
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.history.over_time import TimeProfile
from lightning_gradguard.history.records import Bunch

if TYPE_CHECKING:
    from typing_extensions import Self

STATISTICS = ("grad_norm", "grad_abs_max", "param_norm", "update_ratio")
SCALARS = ("loss", "global_grad_norm", "guard_clip_coefficient")


class StoredRun:
    """What `load_run` gives, of frames that were never written.

    Args:
        frames: Of any number of optimizers.
        findings: As the reader gives them.
        actions: As the reader gives them.
        grow: Called with the run at each `refresh`, as if the training had written more.
        meta: What the run says of itself.
        path: Where the file would be.
    """

    statistics = STATISTICS
    scalars = SCALARS
    is_replaced = False

    def __init__(
        self,
        frames: Sequence[Frame] = (),
        findings: Sequence[Finding] = (),
        actions: Sequence[Action] = (),
        grow: Callable[[StoredRun], object] | None = None,
        path: Path = Path("logs/version_0/gradguard/history.sqlite"),
        **meta: Any,
    ) -> None:
        self.kept = list(frames)
        self.findings = tuple(findings)
        self.actions = tuple(actions)
        self.grow = grow
        self.path = path
        self.name = path.parent.parent.name
        self.meta = {"schema": "gradguard/1", "finished": "finished", **meta}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: there is no file."""

    def refresh(self) -> bool:
        """Let time pass."""
        if self.grow is not None:
            self.grow(self)
        return self.grow is not None

    def time_profiles(self, _optimizer_index: int = 0) -> dict[str, list[TimeProfile]]:
        """Return nothing: no layer is recurrent."""
        return {}

    def action_bunches(self) -> list[Bunch]:
        """Return each action by itself."""
        return [Bunch(action, 1, action.step) for action in self.actions]

    def news(
        self, since: tuple[int, int] = (0, 0)
    ) -> tuple[list[Finding | Action], tuple[int, int]]:
        """Return what was said since."""
        said = [*self.findings[since[0] :], *self.actions[since[1] :]]
        return said, (len(self.findings), len(self.actions))

    @property
    def optimizers(self) -> tuple[int, ...]:
        """Positions of the optimizers."""
        return tuple(sorted({frame.optimizer_index for frame in self.kept}))

    def frames(self, optimizer_index: int = 0) -> Iterator[Frame]:
        """Yield what the detectors saw."""
        return (frame for frame in self.kept if frame.optimizer_index == optimizer_index)

    def layers(self, optimizer_index: int = 0) -> tuple[str, ...]:
        """Return the names of the layers."""
        return next(self.frames(optimizer_index)).layers

    def steps(self, optimizer_index: int = 0) -> np.ndarray:
        """Return the steps, ``(n,)``."""
        return np.array([frame.step for frame in self.frames(optimizer_index)], dtype=np.int64)

    def statistic(self, name: str, optimizer_index: int = 0) -> np.ndarray:
        """Return one number per step and layer, ``(n, layers)``."""
        rows = [getattr(frame, name) for frame in self.frames(optimizer_index)]
        return np.array(rows, dtype=np.float32)

    def is_measured(self, name: str, optimizer_index: int = 0) -> np.ndarray:
        """Return at which steps a scalar was measured."""
        return ~np.isnan(self.scalar(name, optimizer_index))

    def scalar(self, name: str, optimizer_index: int = 0) -> np.ndarray:
        """Return one number per step, ``(n,)``."""
        values = [getattr(frame, name) for frame in self.frames(optimizer_index)]
        return np.array([math.nan if v is None else v for v in values], dtype=np.float64)

    def histograms(self, layer: str, optimizer_index: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the sampled steps, ``(m,)``, and the counts, ``(m, HISTOGRAM_BINS)``."""
        frames = [f for f in self.frames(optimizer_index) if f.log2_histogram is not None]
        place = self.layers(optimizer_index).index(layer)
        counts = [f.log2_histogram[place] for f in frames if f.log2_histogram is not None]
        steps = np.array([frame.step for frame in frames], dtype=np.int64)
        return steps, np.array(counts, dtype=np.float32).reshape(-1, schema.HISTOGRAM_BINS)
