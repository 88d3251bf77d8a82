"""Train one case under the monitor's own eyes, and keep what they saw.

In: a case and a seed. Out: a `Tape`: every frame, the score, and the signals that the published
rules need. The frames come from the same `Session` that the callbacks drive, so that a detector
which is run over a tape sees what it would have seen live.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.detection.case import Training
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.events import Event, Observation
from lightning_gradguard.frame import Frame
from lightning_gradguard.inspector import Inspector
from lightning_gradguard.probe import Probe
from lightning_gradguard.session import Session

__all__ = ["Tape", "Watcher", "train"]


@dataclass
class Tape:
    """What was seen of one training.

    Attributes:
        score: At the end; NaN when it could not be taken.
        seconds: What the training took.
        frames: One per optimizer step, all optimizers, as they came.
        signals: What the published rules ask for, from `signals.Signals`.
    """

    score: float = float("nan")
    seconds: float = 0.0
    frames: list[Frame] = field(default_factory=list)
    signals: Any = None

    def emit(self, event: Event) -> None:
        """Keep a frame: the tape is a sink."""
        if isinstance(event, Observation):
            self.frames.append(event.frame)


class Watcher:
    """Looks at the same training beside the monitor; this one sees nothing."""

    def before_forward(self, step: int) -> None:
        """Be told that a forward pass begins."""

    def before_update(self, step: int, loss: float) -> None:
        """Look at complete gradients, before clipping."""

    def after_update(self, step: int) -> None:
        """Look at the parameters after the step."""

    def result(self) -> Any:  # noqa: ANN401 - each watcher's own affair
        """Return what was seen, and let go of the model."""
        return None


def train(
    build: Callable[[], Training],
    steps: int,
    seed: int,
    *,
    watcher: Callable[[Training], Watcher] | None = None,
    watched: bool = True,
) -> Tape:
    """Train once, on one thread.

    Args:
        build: Makes the training.
        steps: Optimizer steps.
        seed: Decides everything random.
        watcher: Makes an observer that takes the place of the monitor: its hooks could stand in
            the way of the monitor's.
        watched: Whether frames are taken at all.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    began = time.perf_counter()
    training, tape = build(), Tape()
    if watcher is not None:
        beside = watcher(training)
        _train(training, steps, None, beside)
        tape.signals = beside.result()
    elif watched:
        _train_watched(training, steps, tape)
    else:
        _train(training, steps, None, Watcher())
    training.model.eval()
    with torch.no_grad():
        tape.score = float(training.score())
    tape.seconds = time.perf_counter() - began
    return tape


def _train_watched(training: Training, steps: int, tape: Tape) -> None:
    session = Session(Probe(training.model), Inspector([]), sinks=[tape], on_error="raise")
    handles = [
        optimizer.register_step_post_hook(_reporter(session, index))
        for index, optimizer in enumerate(training.optimizers)
    ]
    _train(training, steps, session, Watcher())
    session.finish()
    for handle in handles:
        handle.remove()


def _reporter(session: Session, index: int) -> Callable[..., None]:
    def after_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
        session.after_update(_parameters(optimizer), index)

    return after_step


def _train(training: Training, steps: int, session: Session | None, beside: Watcher) -> None:
    training.model.train()
    for step in range(steps):
        if training.before_step is not None:
            training.before_step(step)
        for index in range(len(training.optimizers)):
            _step(training, index, step, session, beside)
        for scheduler in training.schedulers:
            scheduler.step()
        if session is not None:
            session.end_batch()


def _step(
    training: Training, index: int, step: int, session: Session | None, beside: Watcher
) -> None:
    optimizer = training.optimizers[index]
    optimizer.zero_grad()
    beside.before_forward(step)
    loss = sum(float(part) for part in _backward(training, index, step, session))
    scaler = training.scaler
    if scaler is not None:
        scaler.unscale_(optimizer)
    if session is not None:
        session.before_update(_parameters(optimizer), _context(training, optimizer, index, step))
    beside.before_update(step, loss)
    if training.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(_parameters(optimizer), training.clip_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    beside.after_update(step)


def _backward(
    training: Training, index: int, step: int, session: Session | None
) -> Iterator[Tensor]:
    for _ in range(_parts(training, step)):
        batch = training.batch(step)
        if session is not None:
            session.start_batch(batch)
        with _autocast(training.autocast):
            loss = training.loss(batch, index) / training.accumulate
        if session is not None:
            session.add_loss(loss)
        scaled = loss if training.scaler is None else training.scaler.scale(loss)
        torch.autograd.backward(scaled)
        yield loss.detach()


def _parts(training: Training, step: int) -> int:
    is_short = training.short_every is not None and (step + 1) % training.short_every == 0
    return 1 if is_short else training.accumulate


def _autocast(dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype)


def _context(
    training: Training, optimizer: torch.optim.Optimizer, index: int, step: int
) -> StepContext:
    return StepContext(
        step=step,
        batch_idx=step,
        optimizer_index=index,
        learning_rates=tuple(float(group["lr"]) for group in optimizer.param_groups),
        window_batches=training.accumulate,
        has_scaler=training.scaler is not None,
    )


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
