"""The guard off and on: reference models that fail, and what acting makes of them.

In: a seed. Out: `GUARDED`, and a `GuardedOutcome` for each of them. Each run is trained without a
guard once, and then once for each way of acting.

**What helps, and what does not.**

- *The ReLU RNN that explodes*: its first steps are too large, so only a limit that holds from the
  first step on saves it. A fixed norm does, and so does `zclip`, which has one beside its
  statistics. What first has to learn how large a gradient usually is comes too late, and what
  leaves biases and the last layer alone lets these break. A limit on each entry keeps the run
  alive, but bends every step, and nothing is learned. The automatic policy goes back and on with
  a limit and a tenth of the rate: alive, but slower than these steps allow.
- *A batch-norm network at a rate of 20*: weights grow eightfold in the first step, and on from
  there. Half the rate is still too high. The automatic policy lets no step move the weights too
  far: nothing explodes and it learns, until units are found dead and the rate is cut. A fiftieth
  of the rate helps, and more so after going back to before the first step.
- *The plain twin of ResNet-56*: its gradient explodes by construction. It does not learn at a tenth
  or a hundredth of its rate, either; skips are the cure.
- *A batch of NaN*: to leave it out is all that it takes.
- *Ten sigmoid layers*: their gradient vanishes. Neither clipping nor a lower rate brings back a
  gradient that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor

from examples.reference import batch_norm, recurrent, resnet
from examples.reference.batch_norm import LEARNING_RATE, he, relu10
from examples.reference.digits import LEARNED, Classifier
from examples.reference.run import Run
from examples.reference.train import fit_and_score
from lightning_gradguard import GradientGuard, GradientMonitor
from lightning_gradguard.remedies import ReduceLearningRate, Rollback
from lightning_gradguard.sinks import TensorBoardSink

__all__ = ["GUARDED", "GuardedOutcome", "GuardedRun", "train_guarded"]

Verdict = Literal["learns", "stuck", "broken"]

FAULTS: Final = ("exploding", "diverging", "nonfinite")
BAD_STEP: Final = 10


@dataclass(frozen=True)
class GuardedRun:
    """A training that fails, and a guard.

    Attributes:
        name: Unique name shown in tables, such as ``"relu-rnn+zclip"``.
        run: What is trained.
        expected: Verdicts of which one must be reached.
        guard: Arguments of `GradientGuard`; empty for a monitor, which does not act.
    """

    name: str
    run: Run
    expected: tuple[Verdict, ...]
    guard: Mapping[str, Any] = field(default_factory=dict)

    @property
    def max_steps(self) -> int:
        """Length of the run in optimizer steps."""
        return self.run.max_steps


@dataclass(frozen=True)
class GuardedOutcome:
    """What came of it.

    Attributes:
        run: Name of the run.
        expected: The verdicts that were expected.
        verdict: ``"learns"``: the score is that of a healthy run; ``"broken"``: weights are not
            finite; ``"stuck"``: neither.
        score: Held-out score at the end.
        kinds: Kinds of alarm, in the order of their beginning.
        acts: What the guard did in all, one sentence each.
        report: The closing summary, as text.
    """

    run: str
    expected: tuple[Verdict, ...]
    verdict: Verdict
    score: float
    kinds: tuple[str, ...]
    acts: tuple[str, ...]
    report: str

    @property
    def is_as_expected(self) -> bool:
        """Whether it went as it was known to."""
        return self.verdict in self.expected


def train_guarded(guarded: GuardedRun, seed: int, log_dir: Path) -> GuardedOutcome:
    """Train once.

    Args:
        guarded: What to train, and how to act.
        seed: Decides weights and the order of the data.
        log_dir: Where TensorBoard's files go, in a folder named after the run.
    """

    def watcher(sink: TensorBoardSink) -> GradientMonitor:
        if not guarded.guard:
            return GradientMonitor(sinks=[sink], on_error="raise")
        return GradientGuard(**guarded.guard, sinks=[sink], on_error="raise")

    run = replace(guarded.run, name=guarded.name)
    monitor, model, score = fit_and_score(run, seed, log_dir, watcher)
    is_finite = all(bool(weights.isfinite().all()) for weights in model.parameters())
    learns: Verdict = "learns" if score >= run.target else "stuck"
    opened = (alarm.kind for alarm in monitor.alarms if alarm.state == "opened")
    summary = monitor.summary()
    return GuardedOutcome(
        run=guarded.name,
        expected=guarded.expected,
        verdict=learns if is_finite else "broken",
        score=score,
        kinds=tuple(dict.fromkeys(opened)),
        acts=tuple(summary.acts),
        report=str(summary),
    )


class BadBatch(Classifier):
    """A classifier that is given one batch of NaN."""

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss, as ever."""
        images, targets = batch
        if self.global_step == BAD_STEP:
            images = torch.full_like(images, torch.nan)
        return super().training_step((images, targets))


def _bad_batch() -> BadBatch:
    return BadBatch(relu10(he, norm=True), learning_rate=LEARNING_RATE)


def _reference(name: str, runs: tuple[Run, ...]) -> Run:
    return next(run for run in runs if run.name == name)


relu_rnn = _reference("relu-rnn", recurrent.RUNS)  # 30 steps are enough to break
relu_rnn_long = replace(_reference("relu-rnn-clipped", recurrent.RUNS), gradient_clip_val=None)
sigmoid10 = replace(_reference("sigmoid10", batch_norm.RUNS), target=LEARNED)
plain56 = replace(_reference("plain56", resnet.RUNS), target=LEARNED)
too_high = batch_norm.run(
    "norm-high-rate",
    partial(relu10, he, norm=True),
    "healthy",
    why="Each step multiplies the weights, and norm hides it from the loss.",
    steps=220,
    rate=20.0,
)
nan_batch = replace(_reference("relu10-he", batch_norm.RUNS), name="nan-batch", model=_bad_batch)

SLOWER: Final[Mapping[str, Any]] = {"on_exploding": "reduce_lr", "on_diverging": "reduce_lr"}
AUTO: Final[Mapping[str, Any]] = {"policy": "auto"}
A_FIFTIETH: Final = ReduceLearningRate(FAULTS, factor=0.02, recovery_steps=1000)
MUCH_SLOWER: Final[Mapping[str, Any]] = {"remedies": [A_FIFTIETH]}
BACK: Final[Mapping[str, Any]] = {"remedies": [Rollback(FAULTS, rate=A_FIFTIETH)]}
TOO_LATE: Final[tuple[Verdict, ...]] = ("broken", "stuck")

GUARDED: tuple[GuardedRun, ...] = (
    GuardedRun("relu-rnn+off", relu_rnn, ("broken",)),
    GuardedRun("relu-rnn+norm", relu_rnn_long, ("learns",), {"clip": "norm"}),
    GuardedRun("relu-rnn+value", relu_rnn_long, ("stuck",), {"clip": "value"}),
    GuardedRun("relu-rnn+autoclip", relu_rnn, TOO_LATE, {"clip": "autoclip"}),
    GuardedRun("relu-rnn+zclip", relu_rnn_long, ("learns",), {"clip": "zclip"}),
    GuardedRun("relu-rnn+agc", relu_rnn, TOO_LATE, {"clip": "agc"}),
    GuardedRun("relu-rnn+robust", relu_rnn, TOO_LATE, {"clip": "robust"}),
    GuardedRun("relu-rnn+auto", relu_rnn_long, ("stuck", "learns"), {"policy": "auto"}),
    GuardedRun("norm-high-rate+off", too_high, ("stuck",)),
    GuardedRun("norm-high-rate+reduce_lr", too_high, ("stuck",), SLOWER),
    GuardedRun("norm-high-rate+auto", too_high, ("stuck", "learns"), AUTO),
    GuardedRun("norm-high-rate+reduce_lr/50", too_high, ("learns",), MUCH_SLOWER),
    GuardedRun("norm-high-rate+rollback", too_high, ("learns",), BACK),
    GuardedRun("plain56+off", plain56, ("stuck",)),
    GuardedRun("plain56+reduce_lr", plain56, ("stuck",), SLOWER),
    GuardedRun("plain56+auto", plain56, ("stuck", "learns"), AUTO),
    GuardedRun("nan-batch+off", nan_batch, ("broken",)),
    GuardedRun("nan-batch+skip", nan_batch, ("learns",), {"on_nonfinite": "skip"}),
    GuardedRun("sigmoid10+off", sigmoid10, ("stuck",)),
    GuardedRun("sigmoid10+robust", sigmoid10, ("stuck",), {"clip": "robust"}),
    GuardedRun("sigmoid10+reduce_lr", sigmoid10, ("stuck",), SLOWER),
    GuardedRun("sigmoid10+auto", sigmoid10, ("stuck",), AUTO),
)
