"""One of two processes of a DDP training; writes down what it saw."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from lightning_gradguard import GradientMonitor

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.e2e.models import Classifier, mlp, random_data, trainer


class NanAtTheEnd(Classifier):
    losses: list[float] = []  # noqa: RUF012 - one process, one model

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        return loss * float("nan") if self.global_step == 3 else loss


class Oracle(pl.Callback):
    def __init__(self):
        self.norms = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        grads = torch.cat([p.grad.double().flatten() for p in module.parameters()])
        self.norms.append(grads.norm().item())


class Count:
    def __init__(self):
        self.events = 0

    def emit(self, event):
        self.events += 1


class Siren:
    def __init__(self):
        self.kinds = []

    def send(self, alert):
        self.kinds.append(alert.kind)


class Norms:
    """A detector that only takes notes, and so works on every rank."""

    seen: list[float] = []  # noqa: RUF012 - shared by the copies that the inspector makes

    def update(self, frame):
        self.seen.append(frame.global_grad_norm)
        return ()


def main(folder: Path, *, watched: bool) -> None:
    from lightning_gradguard.detectors import NonFinite

    torch.set_num_threads(1)
    pl.seed_everything(1, verbose=False)
    told, siren, oracle = Count(), Siren(), Oracle()
    monitor = GradientMonitor(
        sinks=[told],
        history=True,
        alerts=siren,
        detectors=[NonFinite(), Norms()],
        on_error="raise",
    )
    callbacks = [oracle, monitor] if watched else [oracle]
    logger = CSVLogger(folder, version=0)
    fit = trainer(*callbacks, strategy="ddp", devices=2, max_epochs=2, logger=logger)
    model = NanAtTheEnd(nn.Sequential(mlp()))
    fit.fit(model, random_data(32, 6))
    record = {
        "norms": [n for n in Norms.seen if n == n],  # noqa: PLR0124 - NaN is not itself
        "oracle": [n for n in oracle.norms if n == n],  # noqa: PLR0124
        "losses": model.losses,
        "findings": [finding.kind for finding in monitor.findings],
        "told": told.events,
        "alerted": siren.kinds,
    }
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    (folder / f"rank{rank}.json").write_text(json.dumps(record))
    state = {name: tensor.nan_to_num() for name, tensor in model.state_dict().items()}
    torch.save(state, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), watched=sys.argv[2] == "watched")
