"""What the history costs: the training thread's time, the disk, and reading it back.

In: options. Out: ``benchmarks/results/history.md``, and the same on the terminal.

    python -m benchmarks.history --steps 10000 --layers 400
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import lightning_gradguard
from benchmarks.shares import Share, share
from lightning_gradguard import schema
from lightning_gradguard.events import Observation
from lightning_gradguard.frame import Frame
from lightning_gradguard.history import load_run
from lightning_gradguard.history.tables import STATISTICS
from lightning_gradguard.sinks.history import HistorySink

RESULTS = Path(__file__).parent / "results" / "history.md"
READS = 15
WARM_UP = 100
HISTOGRAM_EVERY = 50
CONSTANT = {"num_nonfinite": 0.0, "zero_fraction": 0.0}
"""Statistics that say the same of all layers in a healthy training; the other ten do not."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=400)
    parser.add_argument("--step-ms", type=float, default=10.0, help="what a training step takes")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        path = Path(folder, "gradguard", "history.sqlite")
        emits, elsewhere = write_history(path, options)
        size = path.stat().st_size
        first, again, everything = _read(path)
    about = (
        f"- {datetime.now(timezone.utc):%Y-%m-%d}, lightning-gradguard "
        f"{lightning_gradguard.__version__}, Python {platform.python_version()}, "
        f"numpy {np.__version__}, {platform.system()} {platform.machine()}"
    )
    setting = (
        f"- {options.steps:,} steps of {options.layers} layers, {len(STATISTICS)} statistics, of "
        f"which {len(STATISTICS) - len(CONSTANT)} differ between layers; histograms every "
        f"{HISTOGRAM_EVERY} steps; a step of {options.step_ms:g} ms, in which the thread that "
        "writes gets its share of the processor"
    )
    lines = [
        "# The history file",
        "",
        f"Made by `python -m benchmarks.history{_arguments(arguments)}`.",
        "",
        about,
        setting,
        "- Median, with quartiles in brackets",
        "",
        "| what | measured | target |",
        "| --- | ---: | ---: |",
        f"| training thread, per step, wall clock | {_ms(share(emits))} | 0.2 ms |",
        f"| the same, 99th percentile | {np.quantile(emits, 0.99):.3f} ms | |",
        f"| thread that writes, per step, processor time on average | {elsewhere:.2f} ms | |",
        f"| size | {size / 1e6:.0f} MB | 200 MB per 10,000 steps |",
        f"| one statistic, run just opened | {_ms(first, 1)} | 500 ms |",
        f"| one statistic, again | {_ms(again, 1)} | 500 ms |",
        f"| all 16 statistics and all scalars | {_ms(everything, 1)} | |",
        "",
    ]
    page = "\n".join(lines)
    options.output.write_text(page, encoding="utf-8")
    print(page)
    return 0


def write_history(path: Path, options: argparse.Namespace) -> tuple[list[float], float]:
    """Return milliseconds of the training thread, step by step, and the mean of the other."""
    random = np.random.default_rng(0)
    sink, emits = HistorySink(path), []
    names = tuple(f"encoder.layers.{i}.attention.out" for i in range(options.layers))
    sampled = np.zeros(options.layers, dtype=bool)
    others = time.process_time() - time.thread_time()
    for step in range(options.steps):
        start = time.perf_counter()
        drawn = random.lognormal(size=(len(STATISTICS), options.layers))
        vectors: dict[str, Any] = dict(zip(STATISTICS, drawn, strict=True))
        for name, value in CONSTANT.items():
            vectors[name] = np.full(options.layers, value)
        histogram = None
        if step % HISTOGRAM_EVERY == HISTOGRAM_EVERY - 1:
            histogram = np.zeros((options.layers, schema.HISTOGRAM_BINS))
            octaves = random.normal(80.0, 3.0, (options.layers, 1000)).astype(int)
            for row, found in zip(histogram, octaves, strict=True):
                row[:] = np.bincount(found, minlength=schema.HISTOGRAM_BINS)
        frame = Frame(
            step=step,
            layers=names,
            is_sampled=sampled,
            global_grad_norm=float(drawn[0, 0]),
            loss=1.0,
            learning_rates=(0.1,),
            log2_histogram=histogram,
            **vectors,
        )
        event = Observation(frame=frame)
        before = time.perf_counter()
        sink.emit(event)
        emits.append(1e3 * (time.perf_counter() - before))
        time.sleep(max(0.0, options.step_ms / 1e3 - (time.perf_counter() - start)))
    sink.close("finished")
    others = time.process_time() - time.thread_time() - others
    return emits[WARM_UP:], 1e3 * others / options.steps


def _read(path: Path) -> tuple[Share, Share, Share]:
    first, again, everything = [], [], []
    for _ in range(READS):
        start = time.perf_counter()
        with load_run(path) as run:
            run.statistic("grad_norm")
            first.append(1e3 * (time.perf_counter() - start))
            start = time.perf_counter()
            run.statistic("grad_norm")
            again.append(1e3 * (time.perf_counter() - start))
            start = time.perf_counter()
            for name in run.statistics:
                run.statistic(name)
            for name in run.scalars:
                run.scalar(name)
            everything.append(1e3 * (time.perf_counter() - start))
    return share(first), share(again), share(everything)


def _ms(found: Share, digits: int = 4) -> str:
    return f"{found.middle:.{digits}f} ms ({found.low:.{digits}f} to {found.high:.{digits}f})"


def _arguments(arguments: Sequence[str] | None) -> str:
    given = sys.argv[1:] if arguments is None else arguments
    return f" {shlex.join(given)}" if given else ""


if __name__ == "__main__":
    sys.exit(main())
