"""Train every reference model under ``GradientMonitor``, and see it name what fails.

Then let ``GradientGuard`` act on some of those that fail, and see which of them that helps.

In: options. Out: a verdict per run while they go, two tables at the end, and TensorBoard's files.
The exit code is 1 when a verdict is not the expected one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Protocol, TypeVar

try:
    import sklearn  # noqa: F401 - asked for here, so that one sentence says what is missing
    import torchmetrics  # noqa: F401
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table
except ModuleNotFoundError as error:
    sys.exit(f"The demonstration needs {error.name}: pip install 'lightning-gradguard[examples]'.")

from examples.reference import batch_norm, recurrent, resnet
from examples.reference.guarded import GUARDED, GuardedOutcome, GuardedRun, train_guarded
from examples.reference.run import Run
from examples.reference.train import Outcome, train
from lightning_gradguard.findings import layer_phrase

RUNS: tuple[Run, ...] = (*resnet.RUNS, *batch_norm.RUNS, *recurrent.RUNS)


LESSON: Final = (
    "Clipping and lower rates never cure vanishing: what makes steps smaller brings no gradient "
    "back. Nor do they cure what explodes by construction. See docs/causes-signs-cures.md."
)


class Trained(Protocol):
    """What comes out of a run."""

    @property
    def run(self) -> str:
        """Name of the run."""
        ...

    @property
    def is_as_expected(self) -> bool:
        """Whether it went as it was known to."""
        ...


T = TypeVar("T", bound=Trained)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration and return the exit code."""
    options = _options(arguments)
    watched = [run for run in RUNS if not options.only or run.name in options.only]
    guarded = [run for run in GUARDED if not options.only or run.name in options.only]
    # Wide enough for the table even where the output is a file.
    console = Console(width=None if sys.stdout.isatty() else 150)
    start = time.perf_counter()
    found: list[Outcome] = []
    helped: list[GuardedOutcome] = []
    if watched:
        trained = train_all(watched, options.seed, options.log_dir, jobs=options.jobs)
        found = _show(trained, [run.name for run in watched], _verdict_line, console)
        console.print(_table(found, options.seed))
    if guarded:
        acted = guard_all(guarded, options.seed, options.log_dir, jobs=options.jobs)
        helped = _show(acted, [run.name for run in guarded], _guarded_line, console)
        console.print(_guarded_table(helped, options.seed))
        console.print(LESSON, highlight=False)
    outcomes: list[Trained] = [*found, *helped]
    wrong = [outcome.run for outcome in outcomes if not outcome.is_as_expected]
    console.print(f"{len(outcomes)} runs in {time.perf_counter() - start:.0f} s.", highlight=False)
    if wrong:
        console.print(f"[bold red]Not as expected: {', '.join(wrong)}[/]")
    console.print("Look at them:  ", end="")
    tensorboard = Path(sys.executable).with_name("tensorboard")
    console.print(f"{tensorboard} --logdir {options.log_dir}", markup=False, soft_wrap=True)
    return 1 if wrong else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    names = [*(run.name for run in RUNS), *(run.name for run in GUARDED)]
    parser.add_argument("--only", nargs="+", metavar="RUN", choices=names, default=())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("--log-dir", type=Path, default=Path("demo_logs"))
    return parser.parse_args(arguments)


def train_all(runs: Sequence[Run], seed: int, log_dir: Path, *, jobs: int = 2) -> Iterator[Outcome]:
    """Train in separate processes, and yield each outcome as it comes."""
    return _train_apart(train_by_name, runs, seed, log_dir, jobs)


def guard_all(
    runs: Sequence[GuardedRun], seed: int, log_dir: Path, *, jobs: int = 2
) -> Iterator[GuardedOutcome]:
    """Train under guard in separate processes, and yield each outcome as it comes."""
    return _train_apart(guard_by_name, runs, seed, log_dir, jobs)


def _train_apart(
    train: Callable[[str, int, Path], T],
    runs: Sequence[Run | GuardedRun],
    seed: int,
    log_dir: Path,
    jobs: int,
) -> Iterator[T]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        # The longest first, so that no process is left alone with one at the end.
        waiting = [
            pool.submit(train, run.name, seed, log_dir)
            for run in sorted(runs, key=lambda run: -run.max_steps)
        ]
        for future in as_completed(waiting):
            yield future.result()


def _show(
    trained: Iterator[T],
    names: Sequence[str],
    line: Callable[[T], str],
    console: Console,
) -> list[T]:
    """Print each verdict above a progress bar, and return outcomes in the order of names."""
    outcomes: dict[str, T] = {}
    bar = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*bar, console=console) as progress:
        task = progress.add_task("training", total=len(names))
        for outcome in trained:
            outcomes[outcome.run] = outcome
            progress.print(line(outcome), highlight=False)
            progress.advance(task)
    return [outcomes[name] for name in names]


def train_by_name(name: str, seed: int, log_dir: Path) -> Outcome:
    """Train the run of that name; what a worker process is asked to do."""
    return train(next(run for run in RUNS if run.name == name), seed, log_dir)


def guard_by_name(name: str, seed: int, log_dir: Path) -> GuardedOutcome:
    """Train the guarded run of that name; what a worker process is asked to do."""
    return train_guarded(next(run for run in GUARDED if run.name == name), seed, log_dir)


def _mark(outcome: Trained) -> str:
    return "[green]as expected[/]" if outcome.is_as_expected else "[bold red]NOT EXPECTED[/]"


def _verdict_line(outcome: Outcome) -> str:
    headline = outcome.report.splitlines()[0].removeprefix("gradguard: ")
    return f"{outcome.run:18} {_mark(outcome)}  {headline.replace('[', chr(92) + '[')}"


def _guarded_line(outcome: GuardedOutcome) -> str:
    return f"{outcome.run:27} {_mark(outcome)}  {outcome.verdict:6}  {_acts(outcome)}"


def _acts(outcome: GuardedOutcome) -> str:
    """Say what was done, without what it cost."""
    if outcome.run.endswith("+off"):
        return "only watched"
    acts = [act for act in outcome.acts if not act.startswith("clipping cost")]
    return "; ".join(acts) or "nothing to do"


def _table(outcomes: Sequence[Outcome], seed: int) -> Table:
    table = Table(title=f"What the monitor found (seed {seed})")
    for column in ("model", "expected", "found", "layer", "since step"):
        table.add_column(column)
    table.add_column("held-out score", justify="right")
    for outcome in outcomes:
        finding = outcome.finding
        table.add_row(
            outcome.run,
            " or ".join(outcome.expected),
            outcome.found,
            layer_phrase(finding.layers) if finding else "",
            str(finding.since_step) if finding else "",
            f"{outcome.score:.3f}",
            style="green" if outcome.expects_health else "yellow",
        )
    return table


STYLES: Final[Mapping[str, str]] = {"learns": "green", "stuck": "yellow", "broken": "red"}


def _guarded_table(outcomes: Sequence[GuardedOutcome], seed: int) -> Table:
    table = Table(title=f"What the guard did, and whether it helped (seed {seed})")
    for column in ("model", "guard", "found", "what it did"):
        table.add_column(column)
    table.add_column("held-out score", justify="right")
    table.add_column("verdict")
    for outcome in outcomes:
        model, _, guard = outcome.run.partition("+")
        table.add_row(
            model,
            guard,
            ", ".join(outcome.kinds) or "healthy",
            _acts(outcome),
            f"{outcome.score:.3f}",
            outcome.verdict,
            style=STYLES[outcome.verdict],
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
