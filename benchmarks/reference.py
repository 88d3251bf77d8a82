"""Train every reference run over several seeds, and write down what the monitor said of each.

In: options. Out: ``benchmarks/results/reference.md``, one row per run, and the same on the
terminal. The exit code is 1 when any verdict is not the expected one.

    python -m benchmarks.reference --jobs 2
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import datetime, timezone
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning_gradguard
from examples.demo import RUNS, train_by_name
from examples.reference.run import Run
from examples.reference.train import Outcome
from lightning_gradguard.findings import layer_phrase

RESULTS = Path(__file__).parent / "results" / "reference.md"
GROUPS = {
    "resnet": "Residual networks and their plain twins",
    "batch_norm": "Perceptrons: normalisation, initialisation, activation",
    "recurrent": "Recurrent networks",
}
LIBRARIES = ("torch", "pytorch-lightning", "numpy", "scikit-learn", "torchmetrics")
Outcomes = dict[tuple[str, int], Outcome]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write the page and return the exit code."""
    options = _options(arguments)
    runs = [run for run in RUNS if not options.only or run.name in options.only]
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        outcomes: Outcomes = {}
        for seed, outcome in _train(runs, options.seeds, Path(folder), options.jobs):
            outcomes[outcome.run, seed] = outcome
            mark = "as expected " if outcome.is_as_expected else "NOT EXPECTED"
            print(f"{outcome.run:25} seed {seed}  {mark}  {outcome.found}", flush=True)
            if not outcome.is_as_expected:
                print(f"score {outcome.score:.3f}\n{outcome.report}", flush=True)
    minutes = (time.perf_counter() - start) / 60.0
    page = _page(runs, options.seeds, outcomes, minutes, arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page, encoding="utf-8")
    print(page)
    return 0 if all(outcome.is_as_expected for outcome in outcomes.values()) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reference", description=__doc__)
    names = [run.name for run in RUNS]
    parser.add_argument("--only", nargs="+", metavar="RUN", choices=names, default=())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def _train(
    runs: Sequence[Run], seeds: Sequence[int], log_dir: Path, jobs: int
) -> Iterator[tuple[int, Outcome]]:
    """Train in separate processes, the longest first, and yield outcomes as they come."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {
            pool.submit(train_by_name, run.name, seed, log_dir): seed
            for run in sorted(runs, key=lambda run: -run.max_steps)
            for seed in seeds
        }
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _page(
    runs: Sequence[Run],
    seeds: Sequence[int],
    outcomes: Outcomes,
    minutes: float,
    arguments: Sequence[str] | None,
) -> str:
    wrong = [key for key, outcome in outcomes.items() if not outcome.is_as_expected]
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "benchmarks.reference", *given])
    versions = {
        "lightning-gradguard": lightning_gradguard.__version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }
    libraries = ", ".join(" ".join(item) for item in versions.items())
    order = ", ".join(map(str, seeds))
    unexpected = ", ".join(f"{name} (seed {seed})" for name, seed in sorted(wrong)) or "none"
    lines = [
        "# Reference runs",
        "",
        f"Made by `{command}`, {len(outcomes)} trainings in {minutes:.0f} minutes.",
        "",
        f"- {datetime.now(tz=timezone.utc):%Y-%m-%d}, {libraries}",
        f"- {platform.system()} {platform.machine()}, on the CPU, one thread per run",
        f"- Not as expected: {unexpected}",
        "",
        f"Values are given per seed, in the order {order}; once where all agree.",
        "*Layers* and *since step* are those of the first alarm. *Score* is the accuracy on",
        "held-out data; for the adding problem and the ReLU RNN, the share of errors below 0.1.",
        "",
    ]
    for group, title in GROUPS.items():
        members = [run for run in runs if run.group == group]
        if members:
            lines += [f"## {title}", "", *_table(members, seeds, outcomes), ""]
    return "\n".join(lines)


def _table(runs: Sequence[Run], seeds: Sequence[int], outcomes: Outcomes) -> Iterator[str]:
    yield "| run | steps | expected | found | layers | since step | score |"
    yield "| --- | ---: | --- | --- | --- | --- | --- |"
    for run in runs:
        mine = [outcomes[run.name, seed] for seed in seeds]
        cells = (
            run.name,
            str(run.max_steps),
            " or ".join(run.expected),
            _each(mine, lambda outcome: outcome.found),
            _each(mine, _layers),
            _each(mine, lambda o: str(o.finding.since_step) if o.finding else ""),
            " / ".join(f"{outcome.score:.2f}" for outcome in mine),
        )
        yield f"| {' | '.join(cells)} |"


def _each(outcomes: Sequence[Outcome], text: Callable[[Outcome], str]) -> str:
    """Return what is said of each outcome, once when it is the same for all."""
    texts = [text(outcome) for outcome in outcomes]
    return texts[0] if len(set(texts)) == 1 else " / ".join(said or "none" for said in texts)


def _layers(outcome: Outcome) -> str:
    if outcome.finding is None:
        return ""
    names = [layer.removeprefix("network.") for layer in outcome.finding.layers]
    return layer_phrase(names)


if __name__ == "__main__":
    sys.exit(main())
