"""The page of the overhead benchmark.

In: `Results`. Out: Markdown. Nothing is computed here.
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import lightning_gradguard
from benchmarks.overhead_results import LaneResult, Results, SubjectResult, Target
from benchmarks.scaling import Growth
from benchmarks.shares import Share
from benchmarks.watchers import BASE

__all__ = ["lane_table", "page"]

_LIBRARIES = ("torch", "pytorch-lightning", "numpy", "tensorboard", "wandb", "pytorch-ignite")

_HOW = """\
Each lane is a training by Lightning in a thread of its own, and one step of each lane runs in
turn, so that all see the same machine. The first three steps are left out. Looks of the peers are
at every step, as are the monitor's: their own defaults may be rarer, 1000 steps for wandb and 10
batches for Composer.

- *Own hooks*: CPU time of the training thread inside the callback's hooks, and inside hooks that it
  put on modules, tensors and optimizers, over the CPU time of the unwatched step in the same round.
  TensorBoard's writing is counted with them: its thread is made to do its work at once. What
  Lightning does afterwards with `log_dict` is not in it.
- *Own hooks per step*, to which the limits apply: the median of ordinary steps, plus what a rare
  step costs beyond it (the step and the one after it) divided by its real distance: 50 for those
  that are written, 10 for those with a profile over time. In the heavy models steps are written
  every 5 or 7 steps, to have enough of them, and counted as one in 50. For `every_n_steps=10`,
  written steps are seen in `many` only.
- *Plain means* also have Python's full garbage collections in them. They are rare, take a fraction
  of a second and fall on whoever makes objects; here they look through the objects of all lanes
  and of all that the peers import, so they take longer than in a training by itself.
- *Step difference*: CPU time of the whole process in that lane's step over the unwatched one's,
  less one, median and quartiles. The second unwatched lane shows its noise; below 5 % it says
  nothing. What wandb does in its second process is not seen.
- *Waits*: how often a step asks for a number or copies to the host, beyond the unwatched step: what
  would hold up a GPU. Every `.cpu()`, `.numpy()`, `.tolist()` and `.item()` counts as one, so one
  copy read as an array counts as two. The monitor is made to go the way it goes on a GPU.
- *Bytes*: size of the files after the run, per step; rare writing counted as every 50 steps.
"""


def page(
    results: Results, arguments: Sequence[str], picture: Path | None, output: Path | None
) -> str:
    """Return the whole page.

    Args:
        results: What was measured.
        arguments: Of the command line.
        picture: Where the picture of the growth is, or None.
        output: Where the page will be, or None.
    """
    command = shlex.join(["python", "-m", "benchmarks.overhead", *arguments])
    lines = [
        "# Overhead",
        "",
        f"Made by `{command}` in {results.minutes:.0f} minutes.",
        "",
        f"- {datetime.now(tz=timezone.utc):%Y-%m-%d}, {_versions()}",
        f"- {_machine()}, on the CPU, one thread, AdamW (fused)",
        "",
        "## Limits",
        "",
        *_target_table(results.targets),
        "",
        "## How it is measured",
        "",
        _HOW,
    ]
    for result in results.subjects:
        lines += ["", *lane_table(result)]
    lines += ["", "## Memory that the monitor keeps", "", *_memory_table(results.subjects)]
    lines += ["", "## The statistics alone", "", *_statistics_table(results.subjects)]
    if results.entries and results.tensors:
        lines += ["", "## Growth", "", *_growth(results.entries, results.tensors)]
        if picture is not None and output is not None:
            link = os.path.relpath(picture, output.parent)
            lines += ["", f"![CPU time over entries and over tensors]({link})"]
    return "\n".join([*lines, ""])


def lane_table(result: SubjectResult) -> Iterator[str]:
    """Yield the section of one model."""
    subject = result.subject
    yield f"## {subject.name}: {subject.title}"
    yield ""
    yield (
        f"{result.tensors} tensors, {result.entries / 1e6:.2f} M entries, batches of "
        f"{subject.batch_size}. The unwatched step takes {_ms(result.base_ms)} ms of CPU time."
    )
    yield ""
    yield (
        "| lane | gives, at every step | own hooks per step | own hooks, median [quartiles] "
        "| step difference | waits | bytes | steps |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for lane in result.lanes:
        if lane.watcher is not BASE:
            yield f"| {' | '.join(_lane_cells(lane))} |"
    cycles = [lane for lane in result.lanes if lane.own_mean == lane.own_mean and lane.own_mean]
    if cycles:
        means = ", ".join(
            f"{lane.watcher.name} {_percent(lane.own_mean)} ({_percent(lane.collecting_mean)})"
            for lane in cycles
        )
        yield ""
        yield (
            f"Plain mean of own hooks over whole cycles of 50 steps, and in brackets the part of "
            f"it in the garbage collector: {means}."
        )


def _lane_cells(lane: LaneResult) -> tuple[str, ...]:
    return (
        f"`{lane.watcher.name}`: {lane.watcher.title}",
        lane.watcher.gives,
        f"**{_percent(lane.own_per_step)}**",
        _share(lane.own),
        _share(lane.difference),
        f"{lane.waits:.1f}",
        f"{lane.written:,.0f}",
        str(lane.steps),
    )


def _target_table(targets: Sequence[Target]) -> Iterator[str]:
    yield "| figure | measured | must be at most | stretch | |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for target in targets:
        numbers = (target.figure, target.most, target.stretch)
        cells = [_percent(x) if target.unit == "%" else f"{x:.1f} ×" for x in numbers]
        yield f"| {target.name} | {' | '.join(cells)} | {target.verdict} |"


def _memory_table(subjects: Sequence[SubjectResult]) -> Iterator[str]:
    yield "Tensors and arrays that the monitor holds and the training does not, in percent of the"
    yield "parameters' bytes. Short-lived memory inside of its hooks is not in it. *Objects* are"
    yield "all Python objects that it holds."
    yield ""
    yield "| model | step | between steps | between gradients and update | objects |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for result in subjects:
        for kept in result.kept:
            shares = [
                f"{_percent(x / result.parameter_bytes)}" for x in (kept.between, kept.within)
            ]
            sizes = [f"{x / 1e3:,.0f} kB" for x in (kept.between, kept.within)]
            cells = [f"{a} ({b})" for a, b in zip(sizes, shares, strict=True)]
            yield (
                f"| {result.subject.name} | {kept.step} | {' | '.join(cells)} "
                f"| {kept.objects / 1e3:,.0f} kB |"
            )


def _statistics_table(subjects: Sequence[SubjectResult]) -> Iterator[str]:
    yield "`Probe.before_update`, and all that the probe does in a step (`before_update`,"
    yield "`after_update`, `collect`), against `torch._foreach_norm` and `stack` over the same"
    yield "gradients, in turn: milliseconds of CPU time, median [quartiles]."
    yield ""
    yield "| model | `_foreach_norm` | `before_update` | ratio | whole step | ratio |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for result in subjects:
        one = result.statistics
        times = [_ms(time) for time in (one.norms, one.look, one.whole)]
        ratios = [f"{ratio.middle:.1f} ×" for ratio in (one.ratio, one.whole_ratio)]
        yield (
            f"| {result.subject.name} | {times[0]} | {times[1]} | **{ratios[0]}** "
            f"| {times[2]} | {ratios[1]} |"
        )


def _growth(entries: Growth, tensors: Growth) -> Iterator[str]:
    yield "CPU time of the probe's whole step, and a straight line, fixed + slope × size."
    for growth, unit, factor, title in (
        (entries, "ns per entry", 1e9, "entries, in 32 tensors"),
        (tensors, "µs per tensor", 1e6, "tensors of 64 entries"),
    ):
        yield ""
        yield f"| {title} | ms | {unit} | over or under the line |"
        yield "| ---: | ---: | ---: | ---: |"
        rows = zip(growth.sizes, growth.seconds, growth.deviations, strict=True)
        for size, seconds, deviation in rows:
            each = f"{factor * seconds / size:.2f}"
            yield f"| {size:,} | {1e3 * seconds:.2f} | {each} | {deviation:.2f} × |"
        yield ""
        yield (
            f"The line: {1e3 * growth.fixed:.2f} ms + {factor * growth.slope:.2f} {unit}; "
            f"the largest deviation from it is {max(growth.deviations):.2f} ×."
        )


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


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} logical processors"


def _percent(number: float) -> str:
    return f"{100.0 * number:.1f} %"


def _share(share: Share) -> str:
    low, middle, high = (f"{100.0 * x:.1f}" for x in (share.low, share.middle, share.high))
    return f"{middle} [{low}, {high}] %"


def _ms(share: Share) -> str:
    low, middle, high = (f"{x:.3g}" for x in (share.low, share.middle, share.high))
    return f"{middle} [{low}, {high}]"
