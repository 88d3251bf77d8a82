"""What acting costs the training thread, beside torch's own clipping of the same gradients.

In: options. Out: ``benchmarks/results/deciding.md``. Everything is compared inside one process,
in turn, and norms are given, as the monitor has measured them anyway.

    python -m benchmarks.deciding
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from benchmarks.shares import WARM_UP, Share, share
from lightning_gradguard import remedies
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.policy import auto_policy
from lightning_gradguard.ranks import Ranks
from lightning_gradguard.remedies import Remedy
from lightning_gradguard.remedies.council import Council
from lightning_gradguard.remedies.gradients import Known, measure_squares
from lightning_gradguard.rosters import roster_of
from lightning_gradguard.ward import Ward

RESULTS = Path(__file__).parent / "results" / "deciding.md"

MODELS: Final[Mapping[str, Callable[[], nn.Sequential]]] = {
    "400 tensors, 54,400 entries": lambda: _layers(200, 16),
    "12 tensors, 6 million entries": lambda: _layers(6, 1000),
}

ACTORS: Final[Mapping[str, Callable[[], list[Remedy]]]] = {
    "norm, nothing to clip": lambda: [remedies.ClipNorm(1e9)],
    "norm, always clipped": lambda: [remedies.ClipNorm(1e-3)],
    "autoclip": lambda: [remedies.AutoClip()],
    "zclip": lambda: [remedies.ZClip()],
    "robust": lambda: [remedies.Robust()],
    "robust, for each layer": lambda: [remedies.Robust(per="layer")],
    "agc": lambda: [remedies.AGC()],
    "skip what is not finite": lambda: [remedies.SkipNonFinite()],
    "skip outliers": lambda: [remedies.SkipOutlier()],
    "policy=auto": auto_policy,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the page and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deciding", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    text = "\n".join(_page(options.rounds)) + "\n"
    print(text)
    options.output.write_text(text, encoding="utf-8")
    return 0


def measured(model: nn.Module, rounds: int) -> dict[str, tuple[Share, Share]]:
    """Return, for each way of acting, its milliseconds, and its time over that of torch's clipping.

    Args:
        model: Gets random gradients.
        rounds: How often everything is measured, in turn.
    """
    torch.manual_seed(0)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    pristine = [_gradient(parameter).clone() for parameter in parameters]
    deciders = {name: _decider(model, make()) for name, make in ACTORS.items()}
    taken: dict[str, list[float]] = {name: [] for name in ("torch", *deciders)}
    for step in range(rounds + WARM_UP):
        taken["torch"].append(_seconds(nn.utils.clip_grad_norm_, parameters, 1e9))
        for name, decide in deciders.items():
            for parameter, gradient in zip(parameters, pristine, strict=True):
                _gradient(parameter).copy_(gradient)
            taken[name].append(_seconds(decide, step))
    torchs = taken["torch"][WARM_UP:]
    return {
        name: (
            share([1e3 * second for second in seconds[WARM_UP:]]),
            share([s / t for s, t in zip(seconds[WARM_UP:], torchs, strict=True)]),
        )
        for name, seconds in taken.items()
    }


def _decider(model: nn.Module, actors: Sequence[Remedy]) -> Callable[[int], object]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    ward = Ward(
        optimizer,
        Council.of(actors),
        lambda found: roster_of(model, found, {}),
        ranks=Ranks(),
        dry_run=False,
    )
    parameters = list(model.parameters())
    known = Known(parameters, measure_squares([_gradient(p) for p in parameters]))
    loss = torch.tensor(1.0)
    return lambda step: ward.decide(StepContext(step=step), loss, (), known=known)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None  # noqa: S101 - given above
    return parameter.grad


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    start = time.thread_time()
    work(*arguments)
    return time.thread_time() - start


def _layers(count: int, width: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(count)))


def _page(rounds: int) -> Iterator[str]:
    yield "# What acting costs"
    yield ""
    yield "Made by `python -m benchmarks.deciding`."
    yield ""
    today, versions = datetime.now(tz=timezone.utc), f"Python {platform.python_version()}"
    yield f"- {today:%Y-%m-%d}, {versions}, torch {torch.__version__}"
    yield f"- {platform.system()} {platform.machine()}, on the CPU, one thread, {rounds} rounds"
    yield "- CPU milliseconds of the training thread per step: median (quartiles)"
    yield "- Beside the monitor's own cost, which has measured the norms"
    for name, make in MODELS.items():
        yield from ("", f"## {name}", "", "| | ms | times torch's |", "| --- | ---: | ---: |")
        for actor, (milliseconds, ratio) in measured(make(), rounds).items():
            said = "`torch.nn.utils.clip_grad_norm_`" if actor == "torch" else actor
            yield f"| {said} | {_said(milliseconds)} | {_said(ratio)} |"


def _said(number: Share) -> str:
    return f"{number.middle:.2f} ({number.low:.2f} to {number.high:.2f})"


if __name__ == "__main__":
    sys.exit(main())
