"""`GradientMonitor`: Lightning's hooks, each handed on in a line or two.

In: a `Trainer` that calls hooks. Out: the moments of training, to a `Session`. Nothing is
measured or decided here.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec

import torch

from lightning_gradguard import options, trainers
from lightning_gradguard.alerts.settings import Alerts, AlertsLike
from lightning_gradguard.alerts.text import said
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.callbacks import recorder
from lightning_gradguard.detectors import Detector
from lightning_gradguard.detectors.defaults import SENSITIVITIES, Sensitivity
from lightning_gradguard.eager import eager
from lightning_gradguard.episodes import Episode
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.governor import Governor
from lightning_gradguard.inspector import Inspector
from lightning_gradguard.probe import Probe
from lightning_gradguard.report.explain import Explanation, explain, explain_layer
from lightning_gradguard.report.summary import Summary, summarise
from lightning_gradguard.roots import callback_base
from lightning_gradguard.scope import GroupBy
from lightning_gradguard.session import OnError, Session
from lightning_gradguard.sinks import HistorySink, Sink
from lightning_gradguard.sinks.alerts import AlertSink
from lightning_gradguard.step_hooks import StepHooks

if TYPE_CHECKING:
    from pytorch_lightning import Callback as CallbackBase
    from pytorch_lightning import LightningModule, Trainer
else:
    CallbackBase = callback_base()

__all__ = ["GradientMonitor"]

P = ParamSpec("P")

_log: Final = logging.getLogger(__name__)


def _guarded(
    hook: Callable[Concatenate[GradientMonitor, P], None],
) -> Callable[Concatenate[GradientMonitor, P], None]:
    """Keep whatever goes wrong in a hook out of training."""

    @eager  # some hooks run inside a step, which may be compiled
    @functools.wraps(hook)
    def guarded(self: GradientMonitor, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
            self._give_up(error)

    return guarded


class GradientMonitor(CallbackBase):
    """Tell which layer's gradients vanish, explode or break; look, and never touch.

    Final weights, buffers, optimizer state and random state are those of the same training
    without it. A fault of the monitor itself is warned of once, and training goes on.

    Args:
        include: Globs of layers or parameters to watch, such as ``["encoder.*"]``; None means
            all.
        exclude: Globs of layers or parameters to leave out.
        ignore: Kinds not to report, or ``"kind:glob"`` for some layers only, such as
            ``["vanishing:embed*"]``.
        on_finding: Called with each `Finding` when a fault begins, gets worse or ends.
        every_n_steps: Look at one optimizer step in so many; ``>= 1``.
        inside_every_n_steps: Look inside one optimizer step in so many, such as 200: activation
            functions (units that never fire, or are saturated), gradients with respect to layers'
            outputs and to the hidden states of recurrent layers. Such a step takes about half as
            long again, with recurrent layers more. None never does.
        group_by: Whether a row is a ``"module"`` or a single ``"parameter"``.
        exact: Whether zeros, histograms, parameter and update norms of large tensors come from
            all entries, not from a sample; slow, and takes several times the parameters' memory.
        max_overhead: Share of the training time that watching may take, such as ``0.02``: the
            interval is stretched to keep it. Only the look for NaN and infinity is never
            thinned. None looks at every ``every_n_steps`` whatever it takes.
        sensitivity: ``"low"``, ``"normal"`` or ``"high"``: how early the default detectors speak,
            see `detectors.default_detectors`.
        detectors: What to look for; None takes the default ones. Each training and each
            optimizer gets copies, so that none learns from another.
        sinks: Where findings and numbers go; None is the console and the trainer's loggers,
            an empty list is nowhere.
        history: Whether all of it goes to ``<log_dir>/gradguard/history.sqlite``, to be read with
            `load_run`; None does so unless ``sinks`` are given. Nothing is written without a
            logger that has a local folder, nor under ``fast_dev_run``.
        report: Whether to write ``report.html`` beside the history when training ends, however it
            ends: a page that opens without a network.
        alerts: Who is told when nobody looks: an `Alerts`, or what it takes as ``to``, such as
            ``"webhook"`` or a list of channels. None tells nobody.
        on_error: ``"raise"`` lets a fault of the monitor itself end the run, for debugging.
        name: Tells several monitors of one trainer apart in a checkpoint. They log under the
            same keys, so give all but one ``sinks`` of their own.

    Raises:
        ValueError: An argument has a wrong value; globs are checked when training starts.
        TypeError: An argument is of a kind that cannot work.

    Cost:
        See `Probe`. Set the environment variable ``GRADGUARD_DISABLE=1`` to switch off.

    Distributed:
        No collective, but for ``max_overhead``: then all ranks agree on the interval once in
        25 batches. Rank zero talks. Sharded gradients are refused, not guessed.

    State:
        Step counts, findings, open episodes and what detectors have learned, as JSON types.

    Example:
        >>> monitor = GradientMonitor(exclude=["head.*"])
        >>> monitor.findings
        ()
    """

    def __init__(
        self,
        *,
        include: Sequence[str] | str | None = None,
        exclude: Sequence[str] | str | None = None,
        ignore: Sequence[str] | str | None = None,
        on_finding: Callable[[Finding], object] | None = None,
        every_n_steps: int = 1,
        inside_every_n_steps: int | None = None,
        group_by: GroupBy = "module",
        exact: bool = False,
        max_overhead: float | None = None,
        sensitivity: Sensitivity = "normal",
        detectors: Sequence[Detector] | None = None,
        sinks: Sequence[Sink] | None = None,
        history: bool | None = None,
        report: bool = False,
        alerts: AlertsLike | None = None,
        on_error: OnError = "warn",
        name: str = "gradguard",
    ) -> None:
        super().__init__()
        options.check_choice("group_by", group_by, ("module", "parameter"))
        options.check_choice("sensitivity", sensitivity, SENSITIVITIES)
        options.check_choice("on_error", on_error, ("warn", "raise"))
        options.check_bool(exact=exact, report=report)
        options.check_bool(history=bool(history) if history is None else history)
        if report and history is False:
            msg = "`report` is made from the history: `history` must not be False."
            raise ValueError(msg)
        options.check_count("every_n_steps", every_n_steps)
        if inside_every_n_steps is not None:
            options.check_count("inside_every_n_steps", inside_every_n_steps)
        options.check_share("max_overhead", 1.0 if max_overhead is None else max_overhead)
        options.check_parts("detectors", detectors, method="update")
        options.check_parts("sinks", sinks, method="emit")
        options.check_callable("on_finding", on_finding)
        self._include = options.as_globs("include", include)
        self._exclude = options.as_globs("exclude", exclude)
        self._ignore = options.as_globs("ignore", ignore)
        self._group_by: GroupBy = group_by
        self._every_n_steps, self._exact = every_n_steps, exact
        self._inside_every_n_steps = inside_every_n_steps
        self._max_overhead = max_overhead
        self._sensitivity: Sensitivity = sensitivity
        self._on_error: OnError = on_error
        self._on_finding, self._detectors, self._sinks = on_finding, detectors, sinks
        self._writes_history = (sinks is None or report) if history is None else history
        self._writes_report = report
        self._alerts = alerts if alerts is None or isinstance(alerts, Alerts) else Alerts(alerts)
        self._name = name
        self._hooks = StepHooks()
        self._listener: Callable[[Frame, Sequence[Finding]], object] | None = None
        self._model_id = 0
        self._history: HistorySink | None = None
        self._alerting: AlertSink | None = None
        self._outcome = "finished"
        self._forget()

    def _forget(self) -> None:
        self._inspector = self._make_inspector()
        self._session: Session | None = None
        self._governor: Governor | None = None
        self._has_spoken = False
        self._state: Mapping[str, Any] = {}
        self._last_frame: Frame | None = None
        self._notes: Mapping[str, tuple[str, ...]] = {}
        self._summary = summarise((), observed_steps=0, steps=0)

    # What people ask.

    @property
    def findings(self) -> tuple[Finding, ...]:
        """One record per onset, escalation and end of a fault, oldest first."""
        return self._inspector.findings

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The findings of severity ``WARNING`` or above, oldest first."""
        return tuple(finding for finding in self.findings if finding.is_alarm)

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """Faults that go on."""
        return self._inspector.open_episodes

    @property
    def last_frame(self) -> Frame | None:
        """The latest optimizer step that was looked at, or None before the first."""
        return self._last_frame if self._session is None else self._session.last_frame

    def summary(self) -> Summary:
        """Return how the run stands or ended; ``str()`` of it is what the console shows."""
        return self._summary if self._session is None else self._session.summary()

    def explain(self, finding: Finding | str) -> Explanation:
        """Explain a finding, or how a layer stands and why it is left out if it is.

        Args:
            finding: One of `findings`, or the name of a layer.

        Returns:
            An explanation, whose ``str()`` is the text; it holds the numbers, too.

        Raises:
            ValueError: There is no such layer.
        """
        notes = self._notes if self._session is None else self._session.notes
        if isinstance(finding, str):
            return explain_layer(finding, self._inspector.look_back(finding), notes.get(finding))
        return explain(finding, self._inspector.evidence(finding), notes)

    # Lightning's hooks.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit, unless this one continues it; a checkpoint loads later."""
        if stage == "fit" and (trainer.global_step == 0 or self._model_id != id(pl_module)):
            self._forget()
            self._model_id = id(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the model, attach to the optimizers, and take up an earlier state."""
        self._hooks.detach()
        self._outcome = "finished"
        if self._max_overhead is not None:
            # First of all: where nothing is watched, other ranks may still ask for an interval.
            self._governor = Governor(self._max_overhead)
        reason = trainers.reason_not_to_watch(trainer)
        if reason is not None:
            self._summary = summarise((), observed_steps=0, steps=0, stopped=reason)
            return
        self._start_alerts(trainer)
        probe = self._make_probe(pl_module)
        if probe is not None:
            self._start(trainer, probe, pl_module)

    @_guarded
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, *_: object
    ) -> None:
        """Get ready for the forward pass."""
        self._hooks.reset()
        if self._session is not None:
            self._session.start_batch(batch)

    @_guarded
    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None:
        """Note the loss."""
        if self._session is not None:
            self._session.add_loss(loss, trainers.loss_scale(trainer, loss.device))

    @_guarded
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the first of several batches that will be added up."""
        if self._session is None or trainers.window_batches(trainer, pl_module) == 1:
            return
        parameters = trainers.parameters_of(trainer.optimizers[0])
        if not parameters:
            return  # Lightning puts such an optimizer where there is none
        scale = trainers.loss_scale(trainer, parameters[0].device)
        self._session.after_backward(parameters, self._context(trainer, pl_module, 0), scale)

    @_guarded
    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at gradients that are complete, averaged over ranks and not clipped yet."""
        index = trainers.index_of(optimizer, trainer)
        if self._session is None or index is None:
            return
        self._attach(trainer, optimizer, index)
        context = self._context(trainer, pl_module, index)
        scale = trainers.gradient_scale(trainer, optimizer)
        self._session.before_update(trainers.parameters_of(optimizer), context, scale)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Finish the batch."""
        self._end_batch()
        self._beat()
        # Outside of what may be switched off: the other ranks would wait for ever.
        if self._governor is not None and self._governor.count_batch():
            self._agree_on_interval(trainer, self._governor)

    def on_validation_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Take note that something goes on, once training has begun."""
        if not trainer.sanity_checking:
            self._beat()

    def _beat(self) -> None:
        if self._alerting is not None:
            self._alerting.beat()

    def _agree_on_interval(self, trainer: Trainer, governor: Governor) -> None:
        """Take the longest interval that any rank wants, and say so the first time."""
        before = governor.interval
        try:
            governor.interval = trainers.largest_over_ranks(trainer, governor.wanted)
        except Exception as error:  # noqa: BLE001 - any strategy; it is the same on all ranks
            self._governor = None
            warnings.warn(f"gradguard cannot keep max_overhead here: {error!r}", stacklevel=2)
        if governor.interval > before and not self._has_spoken and trainer.is_global_zero:
            self._has_spoken = True
            every = governor.interval if self._session is None else self._session.interval
            _log.warning(
                "gradguard looks at one step in %d now, to stay below max_overhead=%g.",
                every,
                governor.max_overhead,
            )

    @_guarded
    def _end_batch(self) -> None:
        if self._session is not None:
            self._session.end_batch()

    @_guarded
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what is pending and say how it went."""
        self._finish()

    @_guarded
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Lose nothing when training is interrupted."""
        self._outcome = recorder.outcome(exception)
        self._start_late_alerts(trainer)
        self._finish(exception)

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint, one per ``name``."""
        return self._generate_state_key(name=self._name)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON types."""
        return dict(self._state) if self._session is None else self._session.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`, now or when training starts."""
        self._state = state_dict
        if self._session is not None:
            self._restore(self._session)

    # The rest.

    def _context(self, trainer: Trainer, pl_module: LightningModule, index: int) -> StepContext:
        steps = {} if self._session is None else self._session.steps
        return StepContext(
            step=steps.get(index, 0),
            epoch=trainer.current_epoch,
            batch_idx=trainer.fit_loop.batch_idx,
            optimizer_index=index,
            learning_rates=trainers.learning_rates(trainer.optimizers[index]),
            window_batches=trainers.window_batches(trainer, pl_module),
            world_size=trainer.world_size,
            has_scaler=trainers.has_scaler(trainer),
        )

    def _start_alerts(self, trainer: Trainer) -> None:
        """Begin to tell people; a secret or a logger that is missing is what may raise."""
        self._close_alerts()
        if self._alerts is not None and trainer.is_global_zero:
            desk = self._alerts.open(trainers.run_name(trainer), trainer.loggers)
            self._alerting = AlertSink(desk, flush_seconds=self._alerts.flush_seconds)

    def _start_late_alerts(self, trainer: Trainer) -> None:
        """Begin to tell people of a training that died before it began, or after its end."""
        if self._alerting is not None or trainers.is_disabled() or not trainers.is_fit(trainer):
            return
        try:
            self._start_alerts(trainer)
        except Exception as error:  # noqa: BLE001 - what ends the training is worth more
            _log.warning("gradguard cannot tell how the training ended: %s", said(error))

    def _close_alerts(self, error: BaseException | None = None) -> None:
        alerting, self._alerting = self._alerting, None
        if alerting is None:
            return
        try:
            if error is not None:
                is_wish = recorder.outcome(error) == "interrupted"
                alerting.died(error, is_wish=is_wish, alarms=self.alarms)
        finally:
            alerting.close()

    def _make_inspector(self) -> Inspector:
        return Inspector(
            self._detectors,
            sensitivity=self._sensitivity,
            ignore=self._ignore,
            on_error=self._on_error,
        )

    def _make_probe(self, pl_module: LightningModule) -> Probe | None:
        """Return a probe; a glob that matches nothing is the one thing that may raise."""
        try:
            probe = Probe(
                pl_module,
                include=self._include,
                exclude=self._exclude,
                group_by=self._group_by,
                exact=self._exact,
            )
        except ValueError:
            raise
        except Exception as error:  # noqa: BLE001 - any module may be in a model
            self._give_up(error)
            return None
        if probe.scope.tensors or probe.scope.lazy:
            return probe
        probe.remove_hooks()
        reason = "gradguard needs a model with trainable parameters, got one with none"
        warnings.warn(f"{reason}: nothing will be watched.", stacklevel=2)
        self._summary = summarise((), observed_steps=0, steps=0, stopped=reason)
        return None

    @_guarded
    def _start(self, trainer: Trainer, probe: Probe, pl_module: LightningModule) -> None:
        talks = trainer.is_global_zero
        sinks = [*(trainers.default_sinks(trainer) if self._sinks is None else self._sinks)]
        if self._writes_history:
            goes_on = bool(trainer.global_step or trainer.ckpt_path or self._state)
            self._history = recorder.start(trainer, pl_module, name=self._name, goes_on=goes_on)
            if self._writes_report and self._history is None and talks:
                warnings.warn(
                    "gradguard has no folder to write a report to: the trainer needs a logger with "
                    "a folder on a local disk.",
                    stacklevel=2,
                )
            sinks += [] if self._history is None else [self._history]
        sinks += [] if self._alerting is None else [self._alerting]
        session = Session(
            probe,
            self._inspector,
            sinks=sinks if talks else (),
            on_finding=self._on_finding if talks else None,
            every_n_steps=self._every_n_steps,
            inside_every_n_steps=self._inside_every_n_steps,
            log_every_n_steps=trainers.log_every_n_steps(trainer),
            governor=self._governor,
            listener=self._listener,
            on_error=self._on_error,
        )
        if self._alerting is not None:
            session.on_failure = functools.partial(self._alerting.switched_off, is_guard=False)
        self._restore(session)
        self._session = session
        for index, optimizer in enumerate(trainer.optimizers):
            self._attach(trainer, optimizer, index)

    def _restore(self, session: Session) -> None:
        if not self._state:
            return
        try:
            session.load_state_dict(self._state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            warnings.warn(
                f"gradguard cannot read the state in the checkpoint ({error!r}) and starts "
                "afresh. Use the version and the detectors that it was saved with.",
                stacklevel=2,
            )
            self._inspector = session.inspector = self._make_inspector()

    def _attach(self, trainer: Trainer, optimizer: torch.optim.Optimizer, index: int) -> None:
        """Be told of each step that the optimizer makes."""
        if self._session is None or optimizer in self._hooks:
            return
        if not self._hooks.attach(optimizer, self._after_step(trainer, index)):
            self._session.miss_updates_of(index)

    def _after_step(self, trainer: Trainer, index: int) -> Callable[..., None]:
        def context() -> StepContext:
            return self._context(trainer, trainer.lightning_module, index)

        def after_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
            if self._session is not None:
                parameters = trainers.parameters_of(optimizer)
                self._session.after_update(parameters, index, context, self._guarded_step(index))

        return after_step

    def _guarded_step(self, index: int) -> Mapping[str, torch.Tensor | float] | None:
        """Say what was done to the step that was just made; a monitor does nothing."""
        return None

    def _finish(self, error: BaseException | None = None) -> None:
        """Say how it went, and let go of the model."""
        self._hooks.detach()
        try:
            if self._session is not None:
                self._session.flush()
            # Before the summary, which lists what could not be told.
            self._close_alerts(error)
            self._end_session()
        finally:
            history, self._history = self._history, None
            if history is not None:
                recorder.close(history, self._outcome)
                if self._writes_report:
                    recorder.report(history)

    def _end_session(self) -> None:
        if self._session is None:
            return
        self._session.finish()
        self._summary, self._last_frame = self._session.summary(), self._session.last_frame
        self._notes = self._session.notes
        self._state = self._session.state_dict()
        self._session = None

    def _give_up(self, error: Exception) -> None:
        """Stop watching; training goes on."""
        if self._on_error == "raise":
            raise error
        if self._session is not None:
            self._session.switch_off(error)
            return
        reason = f"{type(error).__name__}: {error}"
        self._summary = summarise((), observed_steps=0, steps=0, stopped=reason)
        warnings.warn(
            f"gradguard cannot watch this training, which goes on without it. {reason}",
            stacklevel=3,
        )
