"""Train every case under every treatment, and publish what it came to.

In: options. Out: ``benchmarks/results/interventions.md``. The automatic policy is tuned on the
tuning half only.

    python -m benchmarks.interventions --jobs 2
    python -m benchmarks.interventions --again auto robust  # after the package has changed
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.interventions.case import UNCHANGED, Case, Hand, hands
from benchmarks.interventions.page import page
from benchmarks.interventions.running import HALVES, Job, outcomes
from benchmarks.interventions.scoring import Result, best
from benchmarks.interventions.training import Outcome
from benchmarks.interventions.treatments import NONE, TREATMENTS

RESULTS = Path(__file__).parents[1] / "results" / "interventions.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, judge, write the page and return the exit code."""
    options = _options(arguments)
    jobs = [job for half in options.halves for job in _jobs(half, options)]
    found = outcomes(jobs, options.kept, processes=options.jobs, again=options.again)
    halves = {half: _results(half, options, found) for half in options.halves}
    text = page(halves, options.seeds)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interventions", description=__doc__)
    parser.add_argument("--halves", nargs="+", default=list(HALVES), choices=list(HALVES))
    parser.add_argument("--only", nargs="+", metavar="CASE", default=())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default: 2)")
    parser.add_argument(
        "--kept",
        type=Path,
        default=Path("build/interventions.jsonl"),
        help="what came of trainings is kept here; delete it when a case has changed",
    )
    parser.add_argument(
        "--again",
        nargs="+",
        metavar="TREATMENT",
        default=(),
        choices=list(TREATMENTS),
        help="train these anew, whatever is kept: those that a change of the package touches",
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def _cases(half: str, options: argparse.Namespace) -> list[Case]:
    return [case for case in HALVES[half] if not options.only or case.name in options.only]


def _jobs(half: str, options: argparse.Namespace) -> list[Job]:
    cases, seeds = _cases(half, options), options.seeds
    treated = [Job(half, c.name, s, t) for c in cases for s in seeds for t in TREATMENTS]
    failing = [case for case in cases if not case.is_healthy]
    by_hand = [Job(half, c.name, s, hand=h) for c in failing for s in seeds for h in hands()]
    return treated + by_hand


def _results(half: str, options: argparse.Namespace, found: Mapping[Job, Outcome]) -> list[Result]:
    return [_result(half, case, options.seeds, found) for case in _cases(half, options)]


def _result(half: str, case: Case, seeds: Sequence[int], found: Mapping[Job, Outcome]) -> Result:
    def scores(treatment: str = NONE, hand: Hand = UNCHANGED) -> list[float]:
        return [found[Job(half, case.name, seed, treatment, hand)].score for seed in seeds]

    cures = {"": scores()} if case.is_healthy else {str(h): scores(hand=h) for h in hands()}
    cure, ceiling = best(cures)
    return Result(
        name=case.name,
        is_healthy=case.is_healthy,
        chance=case.task().chance,
        ceiling=ceiling,
        cure=cure,
        scores={treatment: scores(treatment) for treatment in TREATMENTS},
        acts=found[Job(half, case.name, seeds[0], "auto")].acts,
    )


if __name__ == "__main__":
    sys.exit(main())
