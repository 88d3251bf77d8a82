"""One watched training: the probe, the inspector and the sinks, joined.

In: the moments of a training loop, from an adapter. Out: events to the sinks. Knows nothing of
Lightning. Whatever fails in here is reported once and switched off; training goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Concatenate, Final, Literal, ParamSpec

from torch import Tensor, nn

from lightning_gradguard.assemble import StepContext
from lightning_gradguard.audience import Audience
from lightning_gradguard.batches import finite_sum
from lightning_gradguard.events import Action, Observation
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.governor import Governor
from lightning_gradguard.inspector import Inspector
from lightning_gradguard.losses import StepLoss
from lightning_gradguard.noise import NoiseScale
from lightning_gradguard.pace import Pace
from lightning_gradguard.probe import Probe
from lightning_gradguard.report.summary import Summary, summarise
from lightning_gradguard.sinks.base import Sink
from lightning_gradguard.sinks.cadence import is_due
from lightning_gradguard.stopwatch import Stopwatch

__all__ = ["OnError", "Session"]

OnError = Literal["warn", "raise"]
P = ParamSpec("P")

_TIME_STEPS_EVERY: Final = 10
_UNITS_EVERY: Final = 5


def _watching(
    method: Callable[Concatenate[Session, P], None],
) -> Callable[Concatenate[Session, P], None]:
    """Time a method, and keep what it raises out of training."""

    def watched(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.failure is not None:
            return
        with self._stopwatch.running():
            try:
                method(self, *args, **kwargs)
            except Exception as error:
                if self.on_error == "raise":
                    raise
                self.switch_off(error)

    watched.__doc__ = method.__doc__
    return watched


class Session:
    """Watch one training from its first step to its last.

    Args:
        probe: Reads the gradients.
        inspector: Judges the frames.
        sinks: Told of everything; empty on all ranks but zero.
        on_finding: Called with each new finding.
        every_n_steps: Look at one optimizer step in so many.
        inside_every_n_steps: Look inside one optimizer step in so many; None never does.
        log_every_n_steps: Spacing of the steps that sinks write; 0 is never.
        governor: Stretches the interval to keep a budget; None never does.
        listener: Called with each frame and what is new in it.
        on_error: Whether a fault of the monitor itself is warned of or raised.

    Attributes:
        failure: Why watching was switched off, or None.
        last_frame: The latest frame.
        steps: Completed steps of each optimizer.
        acts: Returns what a guard did in all, one sentence each.
        on_failure: Told why watching was switched off.
    """

    def __init__(
        self,
        probe: Probe,
        inspector: Inspector,
        *,
        sinks: Sequence[Sink] = (),
        on_finding: Callable[[Finding], object] | None = None,
        every_n_steps: int = 1,
        inside_every_n_steps: int | None = None,
        log_every_n_steps: int = 0,
        governor: Governor | None = None,
        listener: Callable[[Frame, Sequence[Finding]], object] | None = None,
        on_error: OnError = "warn",
    ) -> None:
        self.probe, self.inspector = probe, inspector
        self.on_error: OnError = on_error
        self.failure: str | None = None
        self.last_frame: Frame | None = None
        self.steps: dict[int, int] = {}
        self._audience = Audience(sinks, on_finding)
        self._listener = listener
        self.acts: Callable[[], Iterable[str]] = tuple
        self.on_failure: Callable[[str], object] = str
        self._pace = Pace(every_n_steps, governor)
        self._stopwatch = Stopwatch()
        self._log_every_n_steps = log_every_n_steps
        self._observed = 0
        self._amp_overflows = 0
        self._loss = StepLoss()
        self._backward_passes = 0
        self._saw_step = self._stepped = False
        self._batch: Tensor | None = None
        self._time_steps_due = 0
        self._inside_every, self._inside_due = inside_every_n_steps, 0
        self._units_due: dict[int, int] = {}
        self._noise: dict[int, NoiseScale] = {}
        self._announced: set[int] = set()
        self._hookless: set[int] = set()

    @_watching
    def start_batch(self, batch: Any = None) -> None:  # noqa: ANN401 - any data loader
        """Get ready for a forward pass.

        Args:
            batch: What will be trained on.
        """
        step = min(self.steps.values(), default=0)
        if self._pace.is_looked_at(step) and (part := finite_sum(batch)) is not None:
            self._batch = part if self._batch is None else self._batch + part
        if self._backward_passes > 0 or not self._pace.is_looked_at(step):
            return
        if self.probe.time_steps.layers and step >= self._time_steps_due:
            self.probe.time_steps.arm()
            self._time_steps_due = step + _TIME_STEPS_EVERY
        # Last: others leave layers alone that have hooks of somebody else.
        if self._inside_every is not None and step >= self._inside_due:
            self.probe.looks.arm()
            self._inside_due = step + self._inside_every

    @_watching
    def add_loss(self, loss: Tensor, scale: Tensor | None = None) -> None:
        """Take in the loss of one backward pass; those before one update add up.

        Args:
            loss: A scalar, as it goes into ``backward``.
            scale: What a gradient scaler multiplied it by, shape ``()``.
        """
        self._loss.add(loss, scale)
        self._backward_passes += 1
        self.probe.looks.end_forward()

    @_watching
    def after_backward(
        self,
        parameters: Iterable[nn.Parameter],
        context: StepContext,
        gradient_scale: Tensor | None = None,
    ) -> None:
        """Look at the gradient of the first of several batches, for the noise scale.

        Args:
            parameters: Those of the optimizer that will step.
            context: Where in training this is.
            gradient_scale: What the gradients are multiplied by, shape ``()``.
        """
        is_first = self._backward_passes == 1 and context.window_batches > 1
        if is_first and self._pace.is_looked_at(context.step):
            self.probe.after_first_batch(parameters, context, gradient_scale)

    @_watching
    def before_update(
        self,
        parameters: Iterable[nn.Parameter],
        context: StepContext,
        gradient_scale: Tensor | None = None,
    ) -> None:
        """Look at complete gradients, after reading what has arrived from earlier steps.

        Args:
            parameters: Those of the optimizer that is about to step.
            context: Where in training this is.
            gradient_scale: What the gradients are still multiplied by, shape ``()``.
        """
        self._observe(parameters, context, gradient_scale)

    def _observe(
        self,
        parameters: Iterable[nn.Parameter],
        context: StepContext,
        gradient_scale: Tensor | None = None,
    ) -> None:
        index = context.optimizer_index
        self._announced.add(index)
        self.probe.abandon_stale(context)
        self._deliver(self.probe.collect())
        loss = self._loss.take()
        context = self._with_batches(context)
        step = self.steps.setdefault(index, 0)
        pace = self._pace
        if not pace.is_looked_at(step) and not pace.looks_broken(
            self.probe, parameters, step, index, loss
        ):
            return
        before = pace.look(step, index, (context.epoch, context.batch_idx))
        units = step >= self._units_due.get(index, 0)
        if units:
            self._units_due[index] = step + _UNITS_EVERY
        parameters = list(parameters)
        is_measured = self.probe.before_update(
            parameters,
            context,
            loss=loss,
            units=units,
            batch=self._batch,
            histogram=is_due(context.step, self._log_every_n_steps, since=before),
            gradient_scale=gradient_scale,
        )
        if not is_measured:
            self.probe.note_absence(parameters, context, loss=loss)

    def _with_batches(self, context: StepContext) -> StepContext:
        """Count the batches that were added up since the last step."""
        self._saw_step = True
        if context.window_batches == 1:
            return context
        batches = min(max(self._backward_passes, 1), context.window_batches)
        return replace(context, accumulated_batches=batches)

    @_watching
    def after_update(
        self,
        parameters: Iterable[nn.Parameter],
        optimizer_index: int,
        context: Callable[[], StepContext] | None = None,
        guarded: Mapping[str, Tensor | float] | None = None,
    ) -> None:
        """Look at what the step did.

        A step that `before_update` was not told of is looked at now: its gradients are those
        that were used, the parameters those after it, and the size of its update unknown.

        Args:
            parameters: Those of the optimizer that has stepped.
            optimizer_index: Position of the optimizer.
            context: Says where in training this is, for a step not told of.
            guarded: What a guard did to it, see `Probe.after_update`.
        """
        if optimizer_index in self._announced:
            self.probe.after_update(optimizer_index, guarded)
        else:
            step = StepContext(
                step=self.steps.get(optimizer_index, 0), optimizer_index=optimizer_index
            )
            self._observe(parameters, step if context is None else context())
            self.probe.close_unseen_update(optimizer_index)
        self._count_step(optimizer_index)

    @property
    def interval(self) -> int:
        """Optimizer steps from one full look to the next."""
        return self._pace.interval

    def miss_updates_of(self, optimizer_index: int) -> None:
        """Take note of an optimizer that cannot tell when it has stepped."""
        self._hookless.add(optimizer_index)

    @_watching
    def end_batch(self) -> None:
        """Finish a training batch."""
        self.probe.end_first_step()
        for index in self._hookless & self._announced:
            self.probe.close_unseen_update(index)
            self._count_step(index)
        self.probe.time_steps.disarm()
        self.probe.looks.end_forward()
        if self.on_error == "raise" and (failure := self.probe.looks.failure) is not None:
            raise failure
        if self._saw_step:
            self.probe.looks.forget()
            self._backward_passes, self._saw_step, self._batch = 0, False, None
        if self._stepped:
            self._pace.end_step(self._stopwatch.end_step())
            self._stepped = False

    def _count_step(self, optimizer_index: int) -> None:
        self._stepped = True
        self._announced.discard(optimizer_index)
        self.steps[optimizer_index] = self.steps.get(optimizer_index, 0) + 1

    def tell(self, action: Action) -> None:
        """Tell the sinks what a guard did."""
        self._audience.tell(action)

    @property
    def notes(self) -> Mapping[str, tuple[str, ...]]:
        """What is special about each layer now: what is frozen may thaw."""
        return self.probe.layer_notes()

    def finish(self) -> None:
        """Read what is pending, take away every hook and tell the sinks the summary."""
        self.flush()
        self._audience.tell(self.summary())

    @_watching
    def flush(self) -> None:
        """Judge all that was looked at, and take away every hook."""
        self._deliver(self.probe.flush())

    @_watching
    def catch_up(self) -> None:
        """Judge what has arrived."""
        self._deliver(self.probe.collect())

    def summary(self) -> Summary:
        """Return how the run stands."""
        unchecked = [*self._audience.muted, *self.inspector.muted]
        unchecked += [f"updates of optimizer {i}, which has no step hooks" for i in self._hookless]
        for layer, reason in self.probe.time_steps.unchecked.items():
            unchecked.append(f"time steps of {layer} ({reason})")
        if self._inside_every is not None:
            unchecked += self.probe.looks.unchecked
        unchecked += [
            f"order of the layers inside {name}, which is compiled: taken as registered"
            for name in self.probe.compiled_modules
        ]
        if self._observed and (unused := self.probe.never_received):
            names = ", ".join(unused[:3]) + (", …" if len(unused) > 3 else "")
            unchecked.append(f"{len(unused)} parameters that never received a gradient: {names}")
        overhead_ms, step_ms = self._stopwatch.means_ms()
        return summarise(
            self.inspector.findings,
            observed_steps=self._observed,
            steps=sum(self.steps.values()),
            last_frame=self.last_frame,
            unchecked=unchecked,
            acts=tuple(self.acts()),
            stopped=self.failure,
            amp_overflows=self._amp_overflows,
            noise_scales={i: n.value for i, n in self._noise.items() if n.value is not None},
            interval=self.interval,
            overhead_ms=overhead_ms,
            step_ms=step_ms,
        )

    def switch_off(self, error: Exception) -> None:
        """Stop watching for good, and say so once."""
        self.failure = f"{type(error).__name__}: {error}"
        self.probe.release()
        self.on_failure(self.failure)
        warnings.warn(f"gradguard stopped watching; training goes on. {self.failure}", stacklevel=3)

    def _deliver(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self.last_frame, self._audience.step = frame, frame.step
            self._observed += 1
            self._amp_overflows += frame.has_scaler and frame.has_nonfinite and not frame.stepped
            noise = self._noise.setdefault(frame.optimizer_index, NoiseScale())
            noise.update(frame)
            new = self.inspector.update(frame)
            for finding in new:
                self._audience.tell(finding)
            if self._listener is not None:
                self._listener(frame, new)
            self._audience.tell(
                Observation(
                    frame=frame,
                    severity=self.inspector.severity,
                    flagged_layers=self.inspector.flagged_layers,
                    is_due=frame.log2_histogram is not None,
                    noise_scale=noise.value,
                    overhead_ms=self._stopwatch.overhead_ms,
                )
            )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types, after reading what has arrived."""
        self.catch_up()
        return {
            "steps": {str(index): count for index, count in self.steps.items()},
            "observed": self._observed,
            "amp_overflows": self._amp_overflows,
            "noise": {str(index): noise.state_dict() for index, noise in self._noise.items()},
            "inspector": self.inspector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.steps = {int(index): count for index, count in state["steps"].items()}
        self._observed = state["observed"]
        self._amp_overflows = state["amp_overflows"]
        for index, noise in state["noise"].items():
            self._noise[int(index)] = NoiseScale()
            self._noise[int(index)].load_state_dict(noise)
        self.inspector.load_state_dict(state["inspector"])
