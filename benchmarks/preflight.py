"""The initialisation check beside what became of the training, on networks whose fate is known.

In: options. Out: ``benchmarks/results/preflight.md``: per network what the check measured before
the first step, and how well it learned the digits in a short training, at the best of several
rates. This is where the limits of the check come from.

    python -m benchmarks.preflight --jobs 2
"""

from __future__ import annotations

import argparse
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

import lightning_gradguard
from examples.reference.batch_norm import Initialise, he, large, perceptron, small, xavier
from examples.reference.digits import LEARNED, digits
from examples.reference.resnet import ResidualNetwork
from lightning_gradguard.initialisation import preflight
from lightning_gradguard.initialisation.signal import GROWS_DECADES, SHRINKS_DECADES

RESULTS = Path(__file__).parent / "results" / "preflight.md"
STEPS = 110


def times_he(weight: Tensor, gain: float) -> Tensor:
    """Draw as He does, some factor larger."""
    with torch.no_grad():
        return he(weight).mul_(gain)


KINDS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "ReLU": nn.ReLU}
INITIALISATIONS: dict[str, Initialise | None] = {
    "default": None,
    "Xavier": xavier,
    "He": he,
    "small": small,
    "2 × Xavier": partial(nn.init.xavier_normal_, gain=2.0),
    "3 × Xavier": partial(nn.init.xavier_normal_, gain=3.0),
    "5 × Xavier": large,
    "1.15 × He": partial(times_he, gain=1.15),
    "1.3 × He": partial(times_he, gain=1.3),
}
DEPTHS = {
    ("sigmoid", "default"): (2, 4, 10, 50),
    ("sigmoid", "Xavier"): (4, 10),
    ("sigmoid", "He"): (4,),
    ("tanh", "default"): (4, 6, 10, 20),
    ("tanh", "Xavier"): (4, 10, 20, 50),
    ("tanh", "He"): (10, 20),
    ("tanh", "small"): (20,),
    ("tanh", "2 × Xavier"): (20,),
    ("tanh", "3 × Xavier"): (20,),
    ("tanh", "5 × Xavier"): (20,),
    ("ReLU", "default"): (4, 6, 10, 20, 50),
    ("ReLU", "Xavier"): (4, 10, 20),
    ("ReLU", "He"): (4, 10, 20, 50),
    ("ReLU", "1.15 × He"): (20,),
    ("ReLU", "1.3 × He"): (20,),
}
NETWORKS = (
    (20, True, True),
    (20, True, False),
    (20, False, True),
    (20, False, False),
    (56, True, True),
    (56, True, False),
    (56, False, True),
)
"""Depth, skip, norm."""
LIBRARIES = ("torch", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Case:
    """One network, and the rates that it is trained at.

    Attributes:
        name: What it is called in the table.
        make: Makes it, from the global random state.
        rates: Learning rates to try, the usual one first.
    """

    name: str
    make: Callable[[], nn.Module]
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """One network and seed: numbers in decades, as in `Signal`, and the best held-out accuracy."""

    per_layer: tuple[float, float]
    in_all: tuple[float, float]
    status: str
    keepers: tuple[str, ...]
    score: float


def cases() -> Iterator[Case]:
    """Yield all networks."""
    for (kind, name), depths in DEPTHS.items():
        for depth in depths:
            make = partial(perceptron, depth, KINDS[kind], INITIALISATIONS[name])
            yield Case(f"{kind} × {depth}, {name}", make, (0.02, 0.1, 0.004))
    normed = partial(perceptron, 10, nn.Sigmoid, norm=True)
    yield Case("sigmoid × 10 with batch norm, default", normed, (0.02, 0.1, 0.004))
    for depth, skip, norm in NETWORKS:
        name = f"{'ResNet' if skip else 'plain'}-{depth}{'' if norm else ' without norm'}"
        network = partial(ResidualNetwork, depth, skip=skip, norm=norm)
        yield Case(f"{name}, default", network, (0.05, 0.005))
    network = partial(ResidualNetwork, 56, skip=True, norm=False, he=True)
    yield Case("ResNet-56 without norm, He", network, (0.05, 0.005))


CASES = {case.name: case for case in cases()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, train, write the page and return the exit code."""
    options = _options(arguments)
    start = time.perf_counter()
    work = [(name, seed) for name in reversed(CASES) for seed in options.seeds]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        names, seeds = zip(*work, strict=True)
        found = dict(zip(work, pool.map(measure_and_train, names, seeds), strict=True))
    minutes = (time.perf_counter() - start) / 60.0
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "benchmarks.preflight", *given])
    rows = {name: [found[name, seed] for seed in options.seeds] for name in CASES}
    page = _page(rows, command, minutes)
    options.output.write_text(page, encoding="utf-8")
    print(page)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preflight", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time (default: 2)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def measure_and_train(name: str, seed: int) -> Result:
    """Check a network before its first step, then train it at one rate after another."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    case = CASES[name]
    torch.manual_seed(seed)
    network = case.make()
    start = {key: value.clone() for key, value in network.state_dict().items()}
    batch = next(iter(digits(seed)[0]))
    check = preflight(network, batch, loss=functional.cross_entropy, seed=seed)
    score = 0.0
    for rate in case.rates:
        if score >= LEARNED:
            break
        network.load_state_dict(start)
        score = max(score, train(network, rate, seed))
    given = check.given
    return Result(
        per_layer=(given.forward_decades_per_layer, given.backward_decades_per_layer),
        in_all=(given.forward_decades, given.backward_decades),
        status=check.status,
        keepers=tuple(signal.initialisation for signal in check.keepers),
        score=score,
    )


def train(network: nn.Module, rate: float, seed: int) -> float:
    """Train for `STEPS` steps by SGD with momentum, and return the held-out accuracy."""
    training, held_out = digits(seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    network.train()
    step = 0
    while step < STEPS:
        for images, targets in training:
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(images), targets)
            if not loss.isfinite() or step >= STEPS:
                step = STEPS
                break
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
    network.eval()
    with torch.no_grad():
        images, targets = next(iter(held_out))
        return float((network(images).argmax(dim=1) == targets).float().mean())


def _page(rows: dict[str, list[Result]], command: str, minutes: float) -> str:
    versions = {
        "lightning-gradguard": lightning_gradguard.__version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }
    libraries = ", ".join(" ".join(item) for item in versions.items())
    lines = [
        "# The initialisation check, and what became of the training",
        "",
        f"Made by `{command}`, {sum(map(len, rows.values()))} networks in {minutes:.0f} minutes.",
        "",
        f"- {datetime.now(tz=timezone.utc):%Y-%m-%d}, {libraries}",
        f"- {platform.system()} {platform.machine()}, on the CPU, one thread per network",
        f"- {STEPS} steps of SGD with momentum 0.9 on scikit-learn's digits; *score* is the",
        "  held-out accuracy at the best of three rates, 0.02, 0.1 and 0.004 (residual networks",
        "  and their plain twins: 0.05 and 0.005). Guessing gets 0.1.",
        "- *Worst* is what depth adds to the signal or the gradient, whichever is more, in",
        "  decades; below zero it shrinks. Medians over seeds. *Keeps it* names what was measured",
        "  to keep the signal of the first seed.",
        "",
        *_groups(rows),
        "",
        "| network | signal per layer | gradient per layer | worst | check | keeps it | score |",
        "| --- | ---: | ---: | ---: | --- | --- | ---: |",
        *(_row(name, results) for name, results in rows.items()),
        "",
    ]
    return "\n".join(lines)


def _worst(result: Result) -> float:
    return max(result.in_all, key=abs)


def _groups(rows: dict[str, list[Result]]) -> Iterator[str]:
    """Say how many networks learned, by how much they shrink or grow."""
    edges = (-math.inf, -5.0, -3.0, -SHRINKS_DECADES, -1.0, 0.0, 1.0, GROWS_DECADES, 2.5, math.inf)
    yield "| worst | networks | learned (0.8) | median score | lowest | highest |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    every = [result for results in rows.values() for result in results]
    for low, high in pairwise(edges):
        scores = [result.score for result in every if low <= _worst(result) < high]
        if scores:
            numbers = f"{median(scores):.2f} | {min(scores):.2f} | {max(scores):.2f}"
            learned = sum(score >= LEARNED for score in scores)
            yield f"| {_between(low, high)} | {len(scores)} | {learned} | {numbers} |"


def _between(low: float, high: float) -> str:
    if low == -math.inf:
        return f"below {high:+g}"
    return f"{low:+g} and above" if high == math.inf else f"{low:+g} to {high:+g}"


def _row(name: str, results: list[Result]) -> str:
    there = median(result.per_layer[0] for result in results)
    back = median(result.per_layer[1] for result in results)
    cells = (
        name,
        f"{there:+.2f}",
        f"{back:+.2f}",
        f"{median(map(_worst, results)):+.1f}",
        " / ".join(dict.fromkeys(result.status for result in results)),
        ", ".join(results[0].keepers) or "none",
        f"{median(result.score for result in results):.2f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
