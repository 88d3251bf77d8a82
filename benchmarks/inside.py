"""What a look inside a step costs: hidden states, activation functions, gradients of outputs.

In: options. Out: ``benchmarks/results/inside.md``, and the same on the terminal.

    python -m benchmarks.inside --rounds 12
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import lightning_gradguard
from benchmarks.models import SUBJECTS, Subject
from lightning_gradguard import Probe
from lightning_gradguard.assemble import StepContext

RESULTS = Path(__file__).parent / "results" / "inside.md"
EVERY = 200
"""Steps from one look to the next, to which the last column refers."""


_HEAD = (
    f"| model | step, ms | with a look inside, ms | more, % of a step | at one step in {EVERY}, % |"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines = [
        "# What a look inside costs",
        "",
        "Made by `python -m benchmarks.inside`.",
        "",
        _about(),
        _how(options.rounds),
        "",
        _HEAD,
        "| --- | ---: | ---: | ---: | ---: |",
        *(_row(subject, options.rounds) for subject in SUBJECTS),
        "",
        "Of recurrent layers eight sequences are run again in eight chunks: in a smaller batch or",
        "with longer sequences their share is larger.",
    ]
    text = "\n".join(lines) + "\n"
    options.output.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _about() -> str:
    return (
        f"- {datetime.now(timezone.utc):%Y-%m-%d}, lightning-gradguard "
        f"{lightning_gradguard.__version__}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, {platform.system()} {platform.machine()}, one thread"
    )


def _how(rounds: int) -> str:
    return (
        "- CPU time of a step with AdamW, watched, and watched with a look inside, in turn, "
        f"{rounds} times each; medians, quartiles in brackets"
    )


def _row(subject: Subject, rounds: int) -> str:
    step = _stepper(subject)
    for is_inside in (False, True, False, True):
        step(is_inside=is_inside)
    plain, inside = [], []
    for _ in range(rounds):
        plain.append(step(is_inside=False))
        inside.append(step(is_inside=True))
    more = 100.0 * (np.array(inside) - np.array(plain)) / np.median(plain)
    return (
        f"| {subject.name}: {subject.title} | {_told(1e3 * np.array(plain))} | "
        f"{_told(1e3 * np.array(inside))} | {_told(more)} | {np.median(more) / EVERY:.2f} |"
    )


def _told(values: np.ndarray) -> str:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.0f} [{low:.0f}, {high:.0f}]"


def _stepper(subject: Subject) -> Callable[..., float]:
    """Return a function that makes a step and tells its CPU seconds."""
    torch.manual_seed(0)
    network = subject.network()
    inputs, labels = subject.data(subject.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    probe = Probe(network)
    steps = iter(range(10**9))

    def step(*, is_inside: bool) -> float:
        gc.collect()
        start = time.process_time()
        if is_inside:
            probe.looks.arm()
        loss = _loss(network, inputs, labels)
        probe.looks.end_forward()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        context = StepContext(step=next(steps))
        probe.before_update(network.parameters(), context, loss=loss.detach())
        optimizer.step()
        probe.after_update(0)
        probe.end_first_step()
        probe.collect()
        return time.process_time() - start

    return step


def _loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    scores = network(inputs)
    return functional.cross_entropy(scores.flatten(0, -2), labels.flatten())


if __name__ == "__main__":
    sys.exit(main())
