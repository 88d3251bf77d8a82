"""Train, judge and publish: recall, precision and the rate of false alarms.

In: options. Out: ``benchmarks/results/detection.md``. Detectors are tuned on ``tuning`` and on
members of the population below 1,000; what is published comes from ``held_out`` and from members
above. Recorded trainings are kept in a folder, and are trained again only where they are missing.

    python -m benchmarks.detection --jobs 2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.detection.judging import Score, Verdict, judge, judge_by
from benchmarks.detection.page import Results, page
from benchmarks.detection.prove import cases_of
from benchmarks.detection.rules import ALL_RULES
from benchmarks.detection.tapes import Job, record
from lightning_gradguard.detectors import Detector, default_detectors
from lightning_gradguard.detectors.defaults import SENSITIVITIES

RESULTS = Path(__file__).parents[1] / "results" / "detection.md"
FIRST_MEMBER = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, judge everything, write the page and return the exit code."""
    options = _options(arguments)
    halves = {half: _judged(half, options) for half in options.halves}
    results = Results(
        halves=halves,
        rules={half: dict(_by_rules(half, options)) for half in options.halves},
        population=dict(_population(options)),
        cures={half: dict(_cured(half, options)) for half in options.halves},
        seeds=tuple(options.seeds),
    )
    text = page(results)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--halves", nargs="+", default=["tuning", "held_out"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--members", type=int, default=330, help="of the healthy population")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default: 2)")
    parser.add_argument("--tapes", type=Path, default=Path("build/detection"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def _judged(half: str, options: argparse.Namespace) -> Score:
    seeds = options.seeds if half == options.halves[-1] else options.seeds[:1]
    jobs = [Job(half, case.name, seed) for case in cases_of(half) for seed in seeds]
    return Score(tuple(_verdicts(jobs, options, default_detectors)))


def _verdicts(
    jobs: Sequence[Job], options: argparse.Namespace, detectors: Callable[[], list[Detector]]
) -> Iterator[Verdict]:
    for job, tape in record(jobs, options.tapes, processes=options.jobs):
        yield judge(job.case, job.seed, tape, detectors)


def _by_rules(half: str, options: argparse.Namespace) -> Iterator[tuple[str, Score]]:
    """Judge the first seed by the published rules."""
    seed = options.seeds[0]
    jobs = [Job(half, case.name, seed, for_rules=True) for case in cases_of(half)]
    tapes = list(record(jobs, options.tapes, processes=options.jobs))
    for rules in ALL_RULES:
        verdicts = [judge_by(rules, job.case, seed, tape) for job, tape in tapes]
        yield rules.name, Score(tuple(verdicts))


def _population(options: argparse.Namespace) -> Iterator[tuple[str, Score]]:
    """Judge the population with each setting of the dial."""
    numbers = range(FIRST_MEMBER, FIRST_MEMBER + options.members)
    jobs = [Job("population", str(number), number) for number in numbers]
    tapes = list(record(jobs, options.tapes, processes=options.jobs))
    for sensitivity in SENSITIVITIES:
        detectors = partial(default_detectors, sensitivity)  # type: ignore[arg-type]  # one of them
        yield (
            sensitivity,
            Score(tuple(judge(job.case, job.seed, tape, detectors) for job, tape in tapes)),
        )


def _cured(half: str, options: argparse.Namespace) -> Iterator[tuple[tuple[str, str], Verdict]]:
    """Train each failing case with each of its cures, and judge that, too."""
    seed = options.seeds[0]
    jobs = [Job(half, c.name, seed, cure) for c in cases_of(half) for cure in c.cures]
    for job, tape in record(jobs, options.tapes, processes=options.jobs):
        yield (job.name, job.cure), judge(job.cured_case, seed, tape, default_detectors)


if __name__ == "__main__":
    sys.exit(main())
