"""What the monitor costs, as a share of the training step, beside what people use today.

In: options. Out: ``benchmarks/results/overhead.md``, a picture in ``docs/images``, and the same
figures on the terminal. The exit code is 1 when the monitor costs more than it may.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --models many --lanes monitor --rounds 100 --output /tmp/many.md

One thread, one process, one step of each lane in turn. Needs the extra ``bench`` for the lanes of
wandb and ignite and for the picture.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships none

from benchmarks import overhead_page, scaling
from benchmarks.measuring import measure_subject
from benchmarks.models import SUBJECTS, Subject
from benchmarks.overhead_results import Results
from benchmarks.shares import WARM_UP
from benchmarks.watchers import WATCHERS

RESULTS: Final = Path(__file__).parent / "results" / "overhead.md"
PICTURE: Final = Path(__file__).parents[1] / "docs" / "images" / "overhead-scaling.png"
_QUICK_ROUNDS: Final = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the page and return the exit code."""
    options = parse(arguments)
    results = measure(options)
    given = sys.argv[1:] if arguments is None else arguments
    picture = _picture(options.output)
    page = overhead_page.page(results, given, picture, options.output)
    print(page)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(page, encoding="utf-8")
    if picture is not None and results.entries and results.tensors:
        scaling.draw(results.entries, results.tensors, picture)
    # So few steps as in a quick run judge nothing.
    return 0 if options.quick or all(target.is_met for target in results.targets) else 1


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options, with models and lanes as records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    subjects = {subject.name: subject for subject in SUBJECTS}
    watchers = {watcher.name: watcher for watcher in WATCHERS}
    parser.add_argument("--models", nargs="+", choices=subjects, default=list(subjects))
    parser.add_argument("--lanes", nargs="+", choices=watchers, default=list(watchers))
    parser.add_argument("--rounds", type=int, help="steps of each lane (default: by model)")
    parser.add_argument("--quick", action="store_true", help="a smoke run; writes nothing")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS.name}, unless --quick")
    options = parser.parse_args(arguments)
    options.models = [subjects[name] for name in options.models]
    options.lanes = [watchers[name] for name in options.lanes]
    missing = sorted({w.needs for w in options.lanes if w.needs and not find_spec(w.needs)})
    if missing:
        parser.error(f"{' and '.join(missing)} missing: install the extra `bench`, or use --lanes.")
    if options.rounds is not None and options.rounds <= WARM_UP:
        parser.error(f"--rounds must be larger than {WARM_UP}, got {options.rounds}.")
    if options.output is None and not options.quick:
        options.output = RESULTS
    return options


def measure(options: argparse.Namespace) -> Results:
    """Measure everything that was asked for."""
    start = time.perf_counter()
    results = Results()
    with _one_thread():
        for subject in options.models:
            result = measure_subject(
                _shortened(subject, options), options.lanes, is_quick=options.quick
            )
            results.subjects.append(result)
            print("\n".join(overhead_page.lane_table(result)), flush=True)
        points = 2 if options.quick else None
        results.entries = scaling.over_entries(scaling.ENTRIES[:points])
        results.tensors = scaling.over_tensors(scaling.TENSORS[:points])
    results.minutes = (time.perf_counter() - start) / 60.0
    return results


def _picture(output: Path | None) -> Path | None:
    """Return where the picture goes; None without a page, or without what draws it."""
    if output is None or not find_spec("matplotlib"):
        return None
    return PICTURE if output == RESULTS else output.with_name(PICTURE.name)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch, and what numpy computes for TensorBoard's histograms, to this thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def _shortened(subject: Subject, options: argparse.Namespace) -> Subject:
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else subject.rounds)
    return replace(subject, rounds=rounds, heavy_rounds=min(rounds, subject.heavy_rounds))


if __name__ == "__main__":
    sys.exit(main())
