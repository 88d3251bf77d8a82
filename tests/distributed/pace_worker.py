"""One of two processes of a DDP training that looks now and then; writes down what it saw."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch

from lightning_gradguard import GradientMonitor
from lightning_gradguard.probe import Probe

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.e2e import float64
from tests.e2e.models import mlp, random_data, trainer
from tests.e2e.modes import Noted

RANK = int(os.environ.get("LOCAL_RANK", "0"))


class Compare:
    """A detector that only takes notes, and so works on every rank."""

    frames: list = []  # noqa: RUF012 - shared by the copies that the inspector makes

    def update(self, frame):
        self.frames.append(frame)
        return ()


def fail_on_rank_one() -> None:
    """Let the monitor of one rank break down in mid-run, before the first decision."""
    healthy = Probe.before_update

    def broken(self, parameters, context, **options):
        if context.step == 12:
            msg = "a bug"
            raise RuntimeError(msg)
        return healthy(self, parameters, context, **options)

    if RANK == 1:
        Probe.before_update = broken


def governed(*, faulty: bool) -> dict:
    monitor = GradientMonitor(sinks=[], max_overhead=1e-6)
    if faulty:
        fail_on_rank_one()
    fit = trainer(monitor, strategy="ddp", devices=2, max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fault is warned of
        fit.fit(Noted(mlp(), torch.optim.SGD), random_data(16 * 80, 6))
    summary = monitor.summary()
    return {
        "intervals": monitor._governor.interval,
        "observed": summary.observed_steps,
        "stopped": summary.stopped,
        "steps": fit.global_step,
    }


class OneClass(Noted):
    """A problem whose batches agree for the most part."""

    def training_step(self, batch, batch_idx):
        return super().training_step((batch[0], torch.zeros_like(batch[1])), batch_idx)


def accumulated() -> dict:
    """Compare every number of every frame here, and say what is worth comparing over ranks."""
    oracle = float64.Oracle()
    monitor = GradientMonitor(sinks=[], detectors=[Compare()], on_error="raise")
    options = {"accumulate_grad_batches": 2, "max_epochs": 5, "log_every_n_steps": 1}
    fit = trainer(oracle, monitor, strategy="ddp", devices=2, **options)
    fit.fit(OneClass(mlp(), torch.optim.SGD), random_data(16 * 9, 6))
    for frame, expected in zip(Compare.frames, oracle.steps[0], strict=True):
        float64.assert_equal(frame, expected, rel=1e-8, sampled_rel=0.0, sees_update=True)
    return {
        "norms": [frame.global_grad_norm for frame in Compare.frames],
        "firsts": [frame.first_batch_grad_norm for frame in Compare.frames],
        "batches": [frame.accumulated_batches for frame in Compare.frames],
        "noise_scale": monitor.summary().noise_scales.get(0),
    }


def main(folder: Path, *, mode: str) -> None:
    torch.set_num_threads(1)
    pl.seed_everything(1, verbose=False)
    record = accumulated() if mode == "accumulated" else governed(faulty=mode == "faulty")
    (folder / f"rank{RANK}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), mode=sys.argv[2])
