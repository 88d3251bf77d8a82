"""Train one reference run under the monitor, and compare what was found with what is known.

In: a ``Run`` and a seed. Out: an ``Outcome``, which the demonstration shows and the tests check.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger

from examples.reference.run import Run
from lightning_gradguard import Finding, GradientMonitor
from lightning_gradguard.sinks import TensorBoardSink

__all__ = ["Outcome", "fit_and_score", "train"]


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        run: Its name.
        expected: The kinds that were expected.
        score: Held-out score at the end.
        target: What a healthy run must reach and a failing one must not.
        alarms: The alarms that were raised, in the order of their beginning.
        report: The monitor's closing summary, as text.
    """

    run: str
    expected: tuple[str, ...]
    score: float
    target: float
    alarms: tuple[Finding, ...]
    report: str

    @property
    def finding(self) -> Finding | None:
        """The first alarm, or None."""
        return self.alarms[0] if self.alarms else None

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds of alarm, in the order of their beginning."""
        return tuple(dict.fromkeys(alarm.kind for alarm in self.alarms))

    @property
    def expects_health(self) -> bool:
        """Whether nothing should have been found."""
        return self.expected == ("healthy",)

    @property
    def found(self) -> str:
        """The verdict, in a word or two."""
        return ", ".join(self.kinds) or "healthy"

    @property
    def is_as_expected(self) -> bool:
        """Whether both the verdict and the score are what they should be."""
        if self.expects_health:
            return not self.kinds and self.score >= self.target
        return bool(set(self.kinds) & set(self.expected)) and not self.score >= self.target


def train(run: Run, seed: int, log_dir: Path) -> Outcome:
    """Train a run once.

    Args:
        run: What to train.
        seed: Decides weights, order of the data and dropout.
        log_dir: Where TensorBoard's files go, in a folder named after the run.
    """
    monitor, _, score = fit_and_score(
        run, seed, log_dir, lambda sink: GradientMonitor(sinks=[sink], on_error="raise")
    )
    alarms = tuple(finding for finding in monitor.alarms if finding.state == "opened")
    return Outcome(
        run=run.name,
        expected=run.expected,
        score=score,
        target=run.target,
        alarms=alarms,
        report=str(monitor.summary()),
    )


def fit_and_score(
    run: Run, seed: int, log_dir: Path, make_monitor: Callable[[TensorBoardSink], GradientMonitor]
) -> tuple[GradientMonitor, LightningModule, float]:
    """Train a run once, and return who watched it, the model and its held-out score.

    Args:
        run: What to train.
        seed: Decides weights, order of the data and dropout.
        log_dir: Where TensorBoard's files go, in a folder named after the run.
        make_monitor: Makes what watches it, or acts on it, from where numbers go.
    """
    _keep_lightning_quiet()
    torch.set_num_threads(1)
    # Saturated recurrent runs are several times slower on numbers next to zero. For the whole
    # process, so this is a choice for a demonstration and not for a library.
    torch.set_flush_denormal(True)
    seed_everything(seed, verbose=False)
    training, held_out = run.data(seed)
    logger = TensorBoardLogger(log_dir, name=run.name, version=f"seed{seed}")
    monitor = make_monitor(TensorBoardSink(logger.experiment))
    trainer = Trainer(
        accelerator="cpu",
        max_steps=run.max_steps,
        max_epochs=-1,
        gradient_clip_val=run.gradient_clip_val,
        callbacks=[monitor],
        logger=logger,
        log_every_n_steps=10,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = run.model()
    trainer.fit(model, training)
    trainer.limit_val_batches = 1.0
    metrics = trainer.validate(model, held_out, verbose=False)[0]
    return monitor, model, float(metrics[run.score])


def _keep_lightning_quiet() -> None:
    """Hide advice about accelerators and workers that does not fit runs of a few seconds."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
