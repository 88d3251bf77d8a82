"""One of two processes that train under guard, one training after another; notes what is left."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from lightning_gradguard.errors import TrainingStoppedError
from lightning_gradguard.remedies import GoBack, LearningRate, Rollback, Skip, Stop
from tests.e2e.guard_cases import (
    At,
    batch_number,
    batches,
    classifier,
    guard,
    normed,
    train,
    with_step,
)
from tests.e2e.guard_schedules import by_hand

RANK = int(os.environ.get("LOCAL_RANK", "0"))  # also where only its examples are looked for
ROWS = [list(batches(8 * 180, 6))[rank::2] for rank in (0, 1)][RANK]


def make(*, lacking=(), bad=(), factor=float("nan"), fused=False):
    """Return a model that takes its own rank's rows, of which rank one may have bad ones."""
    rows = [row for i, row in enumerate(ROWS) if i not in lacking]

    def own_rows(module, step, _batch, batch_idx):
        number = batch_number(module)
        loss = step(rows[number], batch_idx)
        return loss * factor if RANK == 1 and number in bad else loss

    return with_step(classifier(normed, torch.optim.AdamW, fused=fused), own_rows)


class OnRankOne(At):
    """Ask on rank one only."""

    def decide(self, moment):
        return super().decide(moment) if RANK == 1 else ()


def asked(steps, *decisions):
    return guard(remedies=[OnRankOne(steps, *decisions)])


def run(model, *guards, steps=12, **options):
    """Train, and return what is left of it."""
    settings = {"strategy": "ddp", "devices": 2, "data": batches(8 * 180, 6), **options}
    told = ""
    try:
        over = train(model, *guards, max_steps=steps, **settings)
        left = [over.module.state_dict(), over.trainer.optimizers[0].state_dict()]
        steps = over.trainer.global_step
    except TrainingStoppedError as error:
        told, left = str(error), []
    acts = [[action.what, action.step] for one in guards for action in one.actions]
    return {"told": told, "left": left, "acts": acts, "steps": steps}


WINDOWS = {"accumulate_grad_batches": 4}
BUDGET = {"max_consecutive_skips": 2}
NAN, SPIKE = {3, 7}, {70}
BACK = [OnRankOne({9}, GoBack(5, "asked")), Rollback("dead", every_n_steps=2)]

TRAININGS = {
    "nan": lambda: run(make(bad=NAN), guard(on_nonfinite="skip")),
    "nan, lacking": lambda: run(make(lacking=NAN), steps=10),
    "nan, fused": lambda: run(make(bad=NAN, fused=True), guard(on_nonfinite="skip")),
    "nan, fused, lacking": lambda: run(make(lacking=NAN, fused=True), steps=10),
    "nan, scaler": lambda: run(make(bad=NAN), guard(on_nonfinite="skip"), scaled=True),
    "nan, scaler, lacking": lambda: run(make(lacking=NAN), steps=10, scaled=True),
    "nan, windows": lambda: run(make(bad={6}), guard(on_nonfinite="skip"), steps=4, **WINDOWS),
    "nan, windows, lacking": lambda: run(make(lacking={4, 5, 6, 7}), steps=3, **WINDOWS),
    "spike": lambda: run(make(bad=SPIKE, factor=99.0), guard(on_loss_spike="skip"), steps=75),
    "spike, lacking": lambda: run(make(lacking=SPIKE), steps=74),
    "rate": lambda: run(make(), asked(range(4, 99), LearningRate(0.5, "asked"))),
    "rate, by hand": lambda: run(by_hand(make(), (0.5,), start=4)),
    "clip": lambda: run(make(), guard(clip=0.05)),
    "clip, trainer's": lambda: run(make(), gradient_clip_val=0.05),
    "back": lambda: run(make(), guard(remedies=BACK), steps=14),
    "back, lacking": lambda: run(make(lacking={4, 5, 6, 7, 8, 9}), steps=8),
    "stop": lambda: run(make(), asked({4}, Stop("asked"))),
    "stop, early": lambda: run(make(), steps=5),
    "skip": lambda: run(make(), asked({3}, Skip(torch.tensor(data=True), "asked"))),
    "skip, lacking": lambda: run(make(lacking={3}), steps=11),
    "raise": lambda: run(make(), asked({4}, Stop("asked", as_error=True))),
    "budget": lambda: run(
        make(bad=range(3, 99)), guard(on_nonfinite="skip", max_consecutive_skips=2)
    ),
}


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in names:
        torch.save(TRAININGS[name](), folder / f"{name}, rank {RANK}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
