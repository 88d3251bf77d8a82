"""One watched training: the probe, the inspector and the sinks, joined.

In: the moments of a training loop, from an adapter. Out: events to the sinks. Knows nothing of
Lightning. Whatever fails in here is reported once and switched off; training goes on.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Concatenate, Final, Literal, ParamSpec

from torch import Tensor, nn

from lightning_gradguard.assemble import StepContext
from lightning_gradguard.events import Event, Observation
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.inspector import Inspector
from lightning_gradguard.probe import Probe
from lightning_gradguard.report.summary import Summary, summarise
from lightning_gradguard.sinks.base import Sink
from lightning_gradguard.sinks.cadence import is_due

__all__ = ["OnError", "Session"]

OnError = Literal["warn", "raise"]
P = ParamSpec("P")

_TIME_STEPS_EVERY: Final = 10
_TIMINGS: Final = 1000
_TIMINGS_PER_MEDIAN: Final = 50


def _watching(
    method: Callable[Concatenate[Session, P], None],
) -> Callable[Concatenate[Session, P], None]:
    """Time a method, and keep what it raises out of training."""

    def watched(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.failure is not None:
            return
        start = time.perf_counter()
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            if self.on_error == "raise":
                raise
            self.switch_off(error)
        finally:
            self.spent += time.perf_counter() - start

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
        log_every_n_steps: Spacing of the steps that sinks write; 0 is never.
        on_error: Whether a fault of the monitor itself is warned of or raised.

    Attributes:
        failure: Why watching was switched off, or None.
        last_frame: The latest frame.
        steps: Completed steps of each optimizer.
        spent: Seconds spent in here since the last step ended.
    """

    def __init__(
        self,
        probe: Probe,
        inspector: Inspector,
        *,
        sinks: Sequence[Sink] = (),
        on_finding: Callable[[Finding], object] | None = None,
        every_n_steps: int = 1,
        log_every_n_steps: int = 0,
        on_error: OnError = "warn",
    ) -> None:
        self.probe, self.inspector = probe, inspector
        self.on_error: OnError = on_error
        self.failure: str | None = None
        self.last_frame: Frame | None = None
        self.steps: dict[int, int] = {}
        self.spent = 0.0
        self._sinks = list(sinks)
        self._on_finding = on_finding
        self._every_n_steps, self._log_every_n_steps = every_n_steps, log_every_n_steps
        self._muted: list[str] = []
        self._observed = 0
        self._loss: Tensor | None = None
        self._announced: set[int] = set()
        self._hookless: set[int] = set()
        self._overhead_ms = float("nan")
        self._overheads: deque[float] = deque(maxlen=_TIMINGS)
        self._durations: deque[float] = deque(maxlen=_TIMINGS)
        self._last_time: float | None = None

    @_watching
    def start_batch(self) -> None:
        """Get ready for a forward pass."""
        step = min(self.steps.values(), default=0)
        if self.probe.time_steps.layers and step % _TIME_STEPS_EVERY == 0:
            self.probe.time_steps.arm()

    @_watching
    def add_loss(self, loss: Tensor, scale: Tensor | None = None) -> None:
        """Take in the loss of one backward pass; those before one update add up.

        Args:
            loss: A scalar, as it goes into ``backward``.
            scale: What a gradient scaler multiplied it by, shape ``()``.
        """
        # A copy, since a captured graph writes its next loss to the same place.
        value = loss.detach().clone() if loss.numel() == 1 else loss.detach().mean()
        value = value.reshape(())
        value = value if scale is None else value / scale
        self._loss = value if self._loss is None else self._loss + value

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
        loss, self._loss = self._loss, None
        if self.steps.setdefault(index, 0) % self._every_n_steps:
            return
        self.probe.before_update(
            parameters,
            context,
            loss=loss,
            histogram=self._is_due(context.step),
            gradient_scale=gradient_scale,
        )

    @_watching
    def after_update(self, parameters: Iterable[nn.Parameter], optimizer_index: int) -> None:
        """Look at what the step did.

        A step that `before_update` was not told of is looked at now: its gradients are those
        that were used, and the size of its update stays unknown.

        Args:
            parameters: Those of the optimizer that has stepped.
            optimizer_index: Position of the optimizer.
        """
        if optimizer_index not in self._announced:
            context = StepContext(
                step=self.steps.get(optimizer_index, 0), optimizer_index=optimizer_index
            )
            self._observe(parameters, context)
            self.probe.close_unseen_update(optimizer_index)
        else:
            self.probe.after_update(optimizer_index)
        self._count_step(optimizer_index)

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
        self._note_time()

    def _count_step(self, optimizer_index: int) -> None:
        self._announced.discard(optimizer_index)
        self.steps[optimizer_index] = self.steps.get(optimizer_index, 0) + 1

    def _is_due(self, step: int) -> bool:
        return is_due(step, self._log_every_n_steps, stride=self._every_n_steps)

    def _note_time(self) -> None:
        now = time.perf_counter()
        if self._last_time is not None:
            self._durations.append(now - self._last_time)
            self._overheads.append(self.spent)
        self._last_time, self.spent = now, 0.0
        if len(self._overheads) % _TIMINGS_PER_MEDIAN == 1:
            self._overhead_ms = _median_ms(self._overheads)

    def finish(self) -> None:
        """Read what is pending, take away every hook and tell the sinks the summary."""
        self._flush()
        self._emit(self.summary())

    @_watching
    def _flush(self) -> None:
        self._deliver(self.probe.flush())

    @_watching
    def _catch_up(self) -> None:
        self._deliver(self.probe.collect())

    def summary(self) -> Summary:
        """Return how the run stands."""
        unchecked = [*self._muted, *self.inspector.muted]
        unchecked += [f"updates of optimizer {i}, which has no step hooks" for i in self._hookless]
        for layer, reason in self.probe.time_steps.unchecked.items():
            unchecked.append(f"time steps of {layer} ({reason})")
        unchecked += [
            f"order of the layers inside {name}, which is compiled: taken as registered"
            for name in self.probe.compiled_modules
        ]
        if self._observed and (unused := self.probe.never_received):
            names = ", ".join(unused[:3]) + (", …" if len(unused) > 3 else "")
            unchecked.append(f"{len(unused)} parameters that never received a gradient: {names}")
        return summarise(
            self.inspector.findings,
            observed_steps=self._observed,
            steps=sum(self.steps.values()),
            last_frame=self.last_frame,
            unchecked=unchecked,
            stopped=self.failure,
            overhead_ms=_median_ms(self._overheads),
            step_ms=_median_ms(self._durations),
        )

    def switch_off(self, error: Exception) -> None:
        """Stop watching for good, and say so once."""
        self.failure = f"{type(error).__name__}: {error}"
        self.probe.remove_hooks()
        warnings.warn(f"gradguard stopped watching; training goes on. {self.failure}", stacklevel=3)

    def _deliver(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self.last_frame = frame
            self._observed += 1
            for finding in self.inspector.update(frame):
                self._emit(finding)
                if self._on_finding is not None:
                    self._call_user(self._on_finding, finding)
            self._emit(
                Observation(
                    frame=frame,
                    severity=self.inspector.severity,
                    flagged_layers=self.inspector.flagged_layers,
                    is_due=self._is_due(frame.step),
                    overhead_ms=self._overhead_ms,
                )
            )

    def _emit(self, event: Event) -> None:
        for sink in tuple(self._sinks):
            self._tell(sink, event)

    def _tell(self, sink: Sink, event: Event) -> None:
        try:
            sink.emit(event)
        except Exception as error:  # noqa: BLE001 - a sink may be anybody's code
            self._sinks.remove(sink)
            self._mute(type(sink).__name__, error)

    def _call_user(self, function: Callable[[Finding], object], finding: Finding) -> None:
        try:
            function(finding)
        except Exception as error:  # noqa: BLE001 - anybody's code
            self._on_finding = None
            self._mute("on_finding", error)

    def _mute(self, name: str, error: Exception) -> None:
        step = self.last_frame.step if self.last_frame is not None else 0
        reason = f"{name} was switched off at step {step}: {type(error).__name__}: {error}"
        self._muted.append(reason)
        warnings.warn(f"gradguard: {reason}", stacklevel=3)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types, after reading what has arrived."""
        self._catch_up()
        return {
            "steps": {str(index): count for index, count in self.steps.items()},
            "observed": self._observed,
            "inspector": self.inspector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.steps = {int(index): count for index, count in state["steps"].items()}
        self._observed = state["observed"]
        self.inspector.load_state_dict(state["inspector"])


def _median_ms(seconds: Iterable[float]) -> float:
    known = list(seconds)
    return 1000.0 * median(known) if known else float("nan")
