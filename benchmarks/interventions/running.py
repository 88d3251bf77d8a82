"""Many trainings, in several processes, each once.

In: jobs. Out: outcomes, which are kept in a file. Those without a guard do not depend on this
package; those with one do, and say nothing of a package that has changed since: train them again.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from benchmarks.interventions import held_out, tuning, tuning_wider
from benchmarks.interventions.case import UNCHANGED, Case, Hand
from benchmarks.interventions.training import Outcome, train
from benchmarks.interventions.treatments import NONE, TREATMENTS

__all__ = ["HALVES", "Job", "outcomes"]

HALVES: Final[Mapping[str, Sequence[Case]]] = {
    "tuning": tuning.CASES + tuning_wider.CASES,
    "held_out": held_out.CASES,
}


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        half: ``"tuning"`` or ``"held_out"``.
        name: Of the case.
        seed: Decides everything random.
        treatment: One of `TREATMENTS`.
        hand: What a person changes, without a treatment.
    """

    half: str
    name: str
    seed: int
    treatment: str = NONE
    hand: Hand = UNCHANGED

    @property
    def case(self) -> Case:
        """What is trained."""
        return next(case for case in HALVES[self.half] if case.name == self.name)

    @property
    def key(self) -> str:
        """What distinguishes it, as JSON."""
        return json.dumps([self.name, self.seed, self.treatment, asdict(self.hand)])


def outcomes(
    jobs: Sequence[Job], kept: Path, *, processes: int, again: Collection[str] = ()
) -> Mapping[Job, Outcome]:
    """Train what is missing, and return all outcomes.

    Args:
        jobs: What to train.
        kept: File with outcomes, one per line; of two of the same training, the later one counts.
        processes: Trainings at a time.
        again: Treatments whose trainings are missing, whatever is kept.
    """
    known = dict(_read(kept))
    found = {job: known[job.key] for job in jobs if job.key in known and job.treatment not in again}
    missing = [job for job in jobs if job not in found]
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
        kept.open("a", encoding="utf-8") as file,
    ):
        waiting = {pool.submit(_run, job): job for job in missing}
        for future in as_completed(waiting):
            job = waiting[future]
            found[job] = future.result()
            print(f"{len(found)} of {len(jobs)} trainings", end="\r", file=sys.stderr, flush=True)
            line = [job.key, found[job].score, found[job].acts]
            print(json.dumps(line), file=file, flush=True)
    return found


def _read(kept: Path) -> Iterator[tuple[str, Outcome]]:
    if not kept.exists():
        return
    for line in kept.read_text(encoding="utf-8").splitlines():
        key, score, *acts = json.loads(line)  # older files keep no acts, and no guard either
        yield key, Outcome(score, tuple(acts[0]) if acts else ())


def _run(job: Job) -> Outcome:
    logging.disable(logging.CRITICAL)  # a process of its own; the page says what was done
    return train(job.case, job.seed, TREATMENTS[job.treatment], job.hand)
