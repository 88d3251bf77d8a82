"""Train every reference model under ``GradientMonitor``, and see it name what fails.

In: options. Out: a verdict per run while they go, one table at the end, and TensorBoard's files.
The exit code is 1 when a verdict is not the expected one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

try:
    import sklearn  # noqa: F401 - asked for here, so that one sentence says what is missing
    import torchmetrics  # noqa: F401
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table
except ModuleNotFoundError as error:
    sys.exit(f"The demonstration needs {error.name}: pip install 'lightning-gradguard[examples]'.")

from examples.reference import batch_norm, recurrent, resnet
from examples.reference.run import Run
from examples.reference.train import Outcome, train
from lightning_gradguard.findings import layer_phrase

RUNS: tuple[Run, ...] = (*resnet.RUNS, *batch_norm.RUNS, *recurrent.RUNS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration and return the exit code."""
    options = _options(arguments)
    runs = [run for run in RUNS if not options.only or run.name in options.only]
    # Wide enough for the table even where the output is a file.
    console = Console(width=None if sys.stdout.isatty() else 150)
    start = time.perf_counter()
    outcomes = _train_and_show(runs, options, console)
    console.print(_table(outcomes, options.seed))
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
    names = [run.name for run in RUNS]
    parser.add_argument("--only", nargs="+", metavar="RUN", choices=names, default=())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("--log-dir", type=Path, default=Path("demo_logs"))
    return parser.parse_args(arguments)


def train_all(runs: Sequence[Run], seed: int, log_dir: Path, *, jobs: int = 2) -> Iterator[Outcome]:
    """Train in separate processes, and yield each outcome as it comes."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        # The longest first, so that no process is left alone with one at the end.
        waiting = [
            pool.submit(train_by_name, run.name, seed, log_dir)
            for run in sorted(runs, key=lambda run: -run.max_steps)
        ]
        for future in as_completed(waiting):
            yield future.result()


def _train_and_show(
    runs: Sequence[Run], options: argparse.Namespace, console: Console
) -> list[Outcome]:
    """Train under a progress bar, print each verdict, and return outcomes in the runs' order."""
    outcomes: dict[str, Outcome] = {}
    bar = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*bar, console=console) as progress:
        task = progress.add_task("training", total=len(runs))
        for outcome in train_all(runs, options.seed, options.log_dir, jobs=options.jobs):
            outcomes[outcome.run] = outcome
            progress.print(_verdict_line(outcome), highlight=False)
            progress.advance(task)
    return [outcomes[run.name] for run in runs]


def train_by_name(name: str, seed: int, log_dir: Path) -> Outcome:
    """Train the run of that name; what a worker process is asked to do."""
    return train(next(run for run in RUNS if run.name == name), seed, log_dir)


def _verdict_line(outcome: Outcome) -> str:
    mark = "[green]as expected[/]" if outcome.is_as_expected else "[bold red]NOT EXPECTED[/]"
    headline = outcome.report.splitlines()[0].removeprefix("gradguard: ")
    return f"{outcome.run:18} {mark}  {headline.replace('[', chr(92) + '[')}"


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


if __name__ == "__main__":
    sys.exit(main())
