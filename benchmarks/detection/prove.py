"""Prove labels by training: what is called healthy learns, what is called failing does not.

In: one half of the benchmark. Out: one line per training, and an exit code of 1 if a label is
wrong. No detector has a say in here.

    python -m benchmarks.detection.prove tuning --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context

import torch

from benchmarks.detection.case import Case
from benchmarks.detection.loop import train

__all__ = ["cases_of"]


def cases_of(half: str) -> tuple[Case, ...]:
    """Return the labelled trainings of ``"tuning"`` or ``"held_out"``."""
    cases: tuple[Case, ...] = import_module(f"benchmarks.detection.{half}").CASES
    return cases


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection.prove")
    parser.add_argument("half", choices=("tuning", "held_out"))
    parser.add_argument("--only", nargs="+", default=())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--no-cures", action="store_true")
    options = parser.parse_args(arguments)
    jobs = list(_jobs(options.half, options.only, options.seeds, cures=not options.no_cures))
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(_check, jobs))
    wrong = [job for job, is_right in zip(jobs, results, strict=True) if not is_right]
    print(f"{len(jobs) - len(wrong)} of {len(jobs)} labels proven; wrong: {wrong or 'none'}")
    return 1 if wrong else 0


def _jobs(
    half: str, only: Sequence[str], seeds: Sequence[int], *, cures: bool
) -> Iterator[tuple[str, str, str, int]]:
    for case in cases_of(half):
        if only and case.name not in only:
            continue
        for seed in seeds:
            yield half, case.name, "", seed
            if cures:
                yield from ((half, case.name, cure, seed) for cure in case.cures)


def _check(job: tuple[str, str, str, int]) -> bool:
    half, name, cure, seed = job
    torch.set_flush_denormal(True)  # saturated runs are several times slower without
    case = next(case for case in cases_of(half) if case.name == name)
    build = case.cures[cure] if cure else case.build  # type: ignore[index]  # its own key
    tape = train(build, case.steps, seed, watched=False)
    is_right = (tape.score >= case.level) == (case.is_healthy or bool(cure))
    mark = "proven" if is_right else "WRONG "
    what = f"with {cure}" if cure else "/".join(case.kinds) or "healthy"
    text = f"score {tape.score:.3f} level {case.level:.3f}  {tape.seconds:.1f} s"
    print(f"{mark} {name:32} seed {seed}  {what:32} {text}", flush=True)
    return is_right


if __name__ == "__main__":
    sys.exit(main())
