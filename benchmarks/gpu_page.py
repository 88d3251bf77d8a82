"""The page of the GPU benchmark.

In: `Results`. Out: Markdown, and the judgement whether the monitor is cheap enough.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import torch

import lightning_gradguard
from benchmarks.gpu_driver import Calls
from benchmarks.gpu_statistics import Cost
from benchmarks.gpu_training import Size, Turns
from benchmarks.shares import Share, share

__all__ = ["Results", "page"]

_MOST: Final = 0.005
"""Share of the unwatched step that the monitor may take."""

_LIBRARIES: Final = ("torch", "triton", "pytorch-lightning", "numpy")

_HOW: Final = """\
Three trainings by Lightning, each in a thread of its own, run in turn for 10 steps at a time:
two unwatched ones, whose difference shows the noise, and one with `GradientMonitor(sinks=[])`.
bf16-mixed, AdamW (fused), batches that are on the device already. Steps are timed with CUDA
events around a whole turn, since a device works off what Python has prepared; the first 10 steps
are left out.

- *Step difference*: time of the lane's turn over that of the unwatched one in the same round, less
  one, median [quartiles]. The limit applies to its median.
- *Own hooks*: CPU time of the training thread inside of the monitor's hooks, per step. It costs
  training only what the device has to wait for it.
- *Launches, copies, waits*: calls of the driver per step, by `torch.profiler`. Reading an event
  that has long happened counts as a wait.
- *Synchronises*: what torch says under `torch.cuda.set_sync_debug_mode("error")` over a whole
  step after the warm-up.
- *Peak memory*: the most that was allocated during a short training."""


@dataclass
class Results:
    """All that was measured.

    Attributes:
        device: Where.
        size: Of the training.
        entries: Of its parameters.
        has_kernel: Whether large tensors were read by the package's own kernel.
        turns: Of each lane.
        calls: Of the driver, by lane; empty without CUDA, as the next two.
        waits: What waited, by lane.
        memory: Bytes, by lane.
        reading: One read of the gradients, by different means.
        over_entries: The probe's step for more and more entries.
        over_tensors: The same for more and more tensors, by entries of each.
        minutes: How long it all took.
    """

    device: torch.device
    size: Size
    entries: int
    has_kernel: bool
    turns: dict[str, Turns] = field(default_factory=dict)
    calls: dict[str, Calls] = field(default_factory=dict)
    waits: dict[str, str] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    reading: list[Cost] = field(default_factory=list)
    over_entries: list[Cost] = field(default_factory=list)
    over_tensors: dict[int, list[Cost]] = field(default_factory=dict)
    minutes: float = 0.0

    def difference(self, lane: str) -> Share:
        """Return how much longer a lane's steps take, as a share of the unwatched one's."""
        pairs = zip(self.turns[lane].step_ms, self.turns["base"].step_ms, strict=True)
        return share([mine / base - 1.0 for mine, base in pairs])

    @property
    def is_met(self) -> bool:
        """Whether the monitor is cheap enough and never waits."""
        waits = self.waits.get("monitor", "") and not self.waits.get("base")
        return self.difference("monitor").middle <= _MOST and not waits


def page(results: Results, arguments: Sequence[str]) -> str:
    """Return the whole page.

    Args:
        results: What was measured.
        arguments: Of the command line.
    """
    command = shlex.join(["python", "-m", "benchmarks.gpu", *arguments])
    size = results.size
    shape = f"{size.layers} layers, batches of {size.batch_size} x {size.length} words"
    verdict = "met" if results.is_met else "**missed**"
    lines = [
        "# Overhead on a GPU",
        "",
        f"Made by `{command}` in {results.minutes:.0f} minutes.",
        "",
        f"- {datetime.now(tz=timezone.utc):%Y-%m-%d}, {_versions()}",
        f"- {platform.system()} {platform.machine()}, {_device(results.device)}",
        f"- A transformer of {results.entries / 1e6:.1f} M parameters, {shape}",
        f"- Large tensors are read by {_reader(results)}",
        f"- At most {100.0 * _MOST:.1f} % of the step, no waits: {verdict}",
        "",
        _HOW,
        "",
        "## The step",
        "",
        *_lanes(results),
        "",
        "## One read of all gradients",
        "",
        "Milliseconds, median [quartiles], from an idle device until it is idle again, and until",
        "the calling thread goes on.",
        "",
        *_costs(results.reading, "work", 1e6, "ns per entry"),
        "",
        "## Growth of the probe's step",
        "",
        *_costs(results.over_entries, "entries, in 32 tensors", 1e6, "ns per entry"),
    ]
    for entries, costs in results.over_tensors.items():
        lines += ["", *_costs(costs, f"tensors of {entries} entries", 1e3, "µs per tensor")]
    return "\n".join([*lines, ""])


def _lanes(results: Results) -> Iterator[str]:
    yield "| lane | step, ms | step difference | own hooks, ms | launches | copies | waits |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for lane, turns in results.turns.items():
        difference = "" if lane == "base" else _percent(results.difference(lane))
        calls = results.calls.get(lane)
        counts = (
            [f"{n:.1f}" for n in (calls.launches, calls.copies, calls.waits)] if calls else [""] * 3
        )
        cells = [lane, _ms(share(turns.step_ms)), difference, _ms(share(turns.host_ms)), *counts]
        yield f"| {' | '.join(cells)} |"
    if not results.calls:
        yield ""
        yield "Launches, waits and memory are counted on CUDA only."
        return
    yield ""
    for lane, wait in results.waits.items():
        yield f"- `{lane}` synchronises: {wait or 'never'}"
    added = results.memory["monitor"] - results.memory["base"]
    yield (
        f"- Peak memory: {results.memory['base'] / 2**20:,.0f} MiB without the monitor, "
        f"{added / 2**20:+,.1f} MiB with it"
    )


def _costs(costs: Sequence[Cost], title: str, factor: float, unit: str) -> Iterator[str]:
    yield f"| {title} | until done, ms | calling thread, ms | {unit} |"
    yield "| --- | ---: | ---: | ---: |"
    for cost in costs:
        name = cost.name if title == "work" else f"{cost.size:,}"
        each = factor * cost.device_ms.middle / cost.size
        yield f"| {name} | {_ms(cost.device_ms)} | {_ms(cost.host_ms)} | {each:.3g} |"


def _reader(results: Results) -> str:
    return "the package's own kernel" if results.has_kernel else "torch's own operators"


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return "on the CPU: **these figures mean nothing**"
    found = torch.cuda.get_device_properties(device)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def _versions() -> str:
    found = {
        "lightning-gradguard": lightning_gradguard.__version__,
        "Python": platform.python_version(),
    }
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return ", ".join(" ".join(item) for item in found.items())


def _percent(share: Share) -> str:
    low, middle, high = (f"{100.0 * x:.2f}" for x in (share.low, share.middle, share.high))
    return f"**{middle}** [{low}, {high}] %"


def _ms(share: Share) -> str:
    low, middle, high = (f"{x:.3g}" for x in (share.low, share.middle, share.high))
    return f"{middle} [{low}, {high}]"
