"""How the probe's step grows with the number of entries and with the number of tensors.

In: sizes. Out: CPU seconds of a whole probe step for each, a straight line through them, and a
picture. The optimizer and the model's own work are left out.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.shares import WARM_UP
from benchmarks.statistics_pass import probe_step
from lightning_gradguard import Probe

__all__ = ["ENTRIES", "TENSORS", "Growth", "draw", "over_entries", "over_tensors"]

ENTRIES: Final = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000)
TENSORS: Final = (10, 30, 100, 300, 1000, 3000, 5000)
_TENSORS_OF_ENTRIES: Final = 32
_ENTRIES_OF_TENSOR: Final = 64


@dataclass(frozen=True)
class Growth:
    """Costs over sizes, and the straight line ``fixed + slope * size`` through them.

    Attributes:
        sizes: Numbers of entries, or of tensors.
        seconds: Median CPU seconds of a probe step, one per size.
        fixed: Seconds that any step takes.
        slope: Seconds per unit of size.
    """

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    fixed: float
    slope: float

    @property
    def deviations(self) -> tuple[float, ...]:
        """Factor between each point and the line, ``>= 1``."""
        line = self.fixed + self.slope * np.array(self.sizes)
        return tuple(np.exp(np.abs(np.log(np.array(self.seconds) / line))).tolist())


class Weight(nn.Module):
    """One tensor with a gradient.

    Args:
        entries: Of the tensor.
    """

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(entries // 8, 8))
        self.weight.grad = torch.randn(entries // 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input: only the gradients matter here."""
        return x


def over_entries(sizes: Sequence[int] = ENTRIES, *, repeats: int = 9) -> Growth:
    """Measure 32 tensors with so many entries in all."""
    times = [_seconds(_TENSORS_OF_ENTRIES, size // _TENSORS_OF_ENTRIES, repeats) for size in sizes]
    return _growth(sizes, times)


def over_tensors(sizes: Sequence[int] = TENSORS, *, repeats: int = 15) -> Growth:
    """Measure so many tensors, each in a layer of its own, of 64 entries."""
    return _growth(sizes, [_seconds(size, _ENTRIES_OF_TENSOR, repeats) for size in sizes])


def _seconds(tensors: int, entries: int, repeats: int) -> float:
    gc.collect()
    torch.manual_seed(0)
    model = nn.Sequential(*(Weight(entries) for _ in range(tensors)))
    probe = Probe(model)
    parameters = list(model.parameters())
    model(torch.ones(1))
    probe.remove_hooks()
    times = [sum(probe_step(probe, parameters, step)) for step in range(WARM_UP + repeats)]
    probe.flush()
    return float(np.median(times[WARM_UP:]))


def _growth(sizes: Sequence[int], seconds: Sequence[float]) -> Growth:
    """Fit a line by least squares of the relative error: each decade counts the same."""
    weights = 1.0 / np.array(seconds)
    columns = np.stack([weights, weights * np.array(sizes)], axis=1)
    (fixed, slope), *_ = np.linalg.lstsq(columns, np.ones(len(sizes)), rcond=None)
    if fixed < 0.0:
        fixed, slope = 0.0, columns[:, 1].sum() / (columns[:, 1] ** 2).sum()
    return Growth(tuple(sizes), tuple(seconds), float(fixed), float(slope))


def draw(entries: Growth, tensors: Growth, path: Path) -> None:
    """Draw both against their lines.

    Args:
        entries: Over the number of entries.
        tensors: Over the number of tensors.
        path: Where the picture goes.
    """
    from matplotlib import pyplot as plt

    style: dict[str, Any] = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    with plt.rc_context(style):
        figure, panels = plt.subplots(1, 2, figsize=(9.0, 3.8))
        _panel(panels[0], entries, "entries, in 32 tensors", "1 ns per entry", 1e-9)
        _panel(panels[1], tensors, "tensors of 64 entries", "10 µs per tensor", 1e-5)
        panels[0].set_ylabel("CPU time of the probe's step (ms)")
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})
        plt.close(figure)


def _panel(axes: Any, growth: Growth, label: str, reference: str, unit: float) -> None:  # noqa: ANN401
    # Okabe and Ito's colours; markers and dashes say the same again.
    sizes = np.geomspace(growth.sizes[0], growth.sizes[-1], 100)
    measured = [1e3 * seconds for seconds in growth.seconds]
    line = 1e3 * (growth.fixed + growth.slope * sizes)
    axes.loglog(growth.sizes, measured, color="#0072B2", marker="s", linestyle="", label="measured")
    axes.loglog(sizes, line, color="#0072B2", linestyle="--", label="straight line through it")
    axes.loglog(sizes, 1e3 * unit * sizes, color="0.5", linestyle=":", label=reference)
    axes.set_xlabel(label)
    axes.grid(color="0.9")
    axes.legend(frameon=False)
