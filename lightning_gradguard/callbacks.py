"""Lightning's hooks, each handed on in a line or two.

In: a `Trainer` that calls hooks. Out: the moments of training, to a `Session`. Nothing is
measured or decided here, and nothing of Lightning is known elsewhere.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lightning_gradguard.assemble import StepContext
from lightning_gradguard.detectors import Detector
from lightning_gradguard.episodes import Episode
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.inspector import Inspector
from lightning_gradguard.probe import Probe
from lightning_gradguard.report.explain import explain
from lightning_gradguard.report.summary import Summary, summarise
from lightning_gradguard.roots import callback_base
from lightning_gradguard.scope import GroupBy
from lightning_gradguard.session import OnError, Session
from lightning_gradguard.sinks import ConsoleSink, LoggerSink, Sink, TensorBoardSink

if TYPE_CHECKING:
    from pytorch_lightning import Callback as CallbackBase
    from pytorch_lightning import LightningModule, Trainer
    from torch.utils.hooks import RemovableHandle
else:
    CallbackBase = callback_base()

__all__ = ["GradientMonitor"]


class GradientMonitor(CallbackBase):
    """Tell which layer's gradients vanish, explode or break; look, and never touch.

    Final weights, buffers, optimizer state and random state are those of the same training
    without it. A fault of the monitor itself is warned of once, and training goes on.

    Args:
        include: Globs of layers or parameters to watch, such as ``["encoder.*"]``; empty
            means all.
        exclude: Globs of layers or parameters to leave out.
        ignore: Kinds not to report, or ``"kind:glob"`` for some layers only, such as
            ``["vanishing:embed*"]``.
        on_finding: Called with each `Finding` when a fault begins, gets worse or ends.
        every_n_steps: Look at one optimizer step in so many; ``>= 1``.
        group_by: Whether a row is a ``"module"`` or a single ``"parameter"``.
        detectors: What to look for; None takes the default ones.
        sinks: Where findings and numbers go; None is the console and the trainer's loggers,
            an empty list is nowhere.
        on_error: ``"raise"`` lets a fault of the monitor itself end the run, for debugging.
        name: Tells several monitors of one trainer apart.

    Raises:
        ValueError: An argument has a wrong value; globs are checked when training starts.

    Cost:
        See `Probe`. Set the environment variable ``GRADGUARD_DISABLE=1`` to switch off.

    Distributed:
        No collective. Rank zero talks. Sharded gradients are refused, not guessed.

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
        include: Sequence[str] | str = (),
        exclude: Sequence[str] | str = (),
        ignore: Sequence[str] | str = (),
        on_finding: Callable[[Finding], object] | None = None,
        every_n_steps: int = 1,
        group_by: GroupBy = "module",
        detectors: Sequence[Detector] | None = None,
        sinks: Sequence[Sink] | None = None,
        on_error: OnError = "warn",
        name: str = "gradguard",
    ) -> None:
        super().__init__()
        _check_choice("group_by", group_by, ("module", "parameter"))
        _check_choice("on_error", on_error, ("warn", "raise"))
        if every_n_steps < 1 or every_n_steps != int(every_n_steps):
            msg = f"`every_n_steps` must be a whole number of at least 1, got {every_n_steps!r}."
            raise ValueError(msg)
        self._include, self._exclude = _as_tuple(include), _as_tuple(exclude)
        self._group_by: GroupBy = group_by
        self._every_n_steps = every_n_steps
        self._on_error: OnError = on_error
        self._on_finding = on_finding
        self._sinks = None if sinks is None else list(sinks)
        self._name = name
        self._detectors, self._ignore = detectors, _as_tuple(ignore)
        self._inspector = Inspector(detectors, ignore=self._ignore)
        self._session: Session | None = None
        self._handles: list[RemovableHandle] = []
        self._state: Mapping[str, Any] = {}

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
        return None if self._session is None else self._session.last_frame

    def summary(self) -> Summary:
        """Return how the run stands or ended; ``str()`` of it is what the console shows."""
        if self._session is None:
            return summarise(self.findings, observed_steps=0, steps=0)
        return self._session.summary()

    def explain(self, finding: Finding) -> str:
        """Return what a finding means, why it happens and what helps, in a few lines."""
        return explain(finding)

    # Lightning's hooks.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit, unless this one continues it; a checkpoint loads later."""
        if stage == "fit" and trainer.global_step == 0:
            self._inspector = Inspector(self._detectors, ignore=self._ignore)
            self._session, self._state = None, {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the model and attach to the optimizers."""
        state = self.state_dict()
        self._detach()
        self._session = None
        if os.environ.get("GRADGUARD_DISABLE", "0") not in {"", "0"} or not _is_supported(trainer):
            return
        probe = Probe(
            pl_module, include=self._include, exclude=self._exclude, group_by=self._group_by
        )
        if not (probe.scope.tensors or probe.scope.lazy):
            probe.remove_hooks()
            warnings.warn(
                "gradguard needs a model with trainable parameters, got one with none: "
                "nothing will be watched.",
                stacklevel=2,
            )
            return
        self._session = Session(
            probe,
            self._inspector,
            sinks=self._make_sinks(trainer) if trainer.is_global_zero else (),
            on_finding=self._on_finding if trainer.is_global_zero else None,
            every_n_steps=self._every_n_steps,
            log_every_n_steps=_log_every_n_steps(trainer),
            on_error=self._on_error,
        )
        if state:
            self._session.load_state_dict(state)
        for index, optimizer in enumerate(trainer.optimizers):
            self._handles.append(optimizer.register_step_post_hook(self._post_hook(index)))

    def on_train_batch_start(self, *_: object) -> None:
        """Get ready for the forward pass."""
        if self._session is not None:
            self._session.start_batch()

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None:
        """Note the loss."""
        if self._session is not None:
            self._session.add_loss(loss, _loss_scale(trainer, loss.device))

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at gradients that are complete, averaged over ranks and not clipped yet."""
        index = _index_of(optimizer, trainer.optimizers)
        if self._session is None or index is None:
            return
        context = StepContext(
            step=self._session.steps.get(index, 0),
            epoch=trainer.current_epoch,
            batch_idx=trainer.fit_loop.batch_idx,
            optimizer_index=index,
            learning_rates=tuple(_number(group["lr"]) for group in optimizer.param_groups),
        )
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._session.before_update(parameters, context, _gradient_scale(trainer, optimizer))

    def on_train_batch_end(self, *_: object) -> None:
        """Finish the batch."""
        if self._session is not None:
            self._session.end_batch()
            self._session.note_time()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what is pending and say how it went."""
        self._finish()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Lose nothing when training is interrupted."""
        self._finish()

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
        if self._session is not None and state_dict:
            self._session.load_state_dict(state_dict)

    # The rest.

    def _post_hook(self, index: int) -> Callable[..., None]:
        def after_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
            if self._session is not None:
                self._session.after_update(optimizer, index)

        return after_step

    def _finish(self) -> None:
        self._detach()
        if self._session is not None:
            self._session.finish()

    def _detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _make_sinks(self, trainer: Trainer) -> list[Sink]:
        if self._sinks is not None:
            return self._sinks
        every = _log_every_n_steps(trainer)
        # Under `fast_dev_run` the loggers are dummies that take anything.
        loggers = [] if getattr(trainer, "fast_dev_run", False) else trainer.loggers
        return [ConsoleSink(), *(_sink_for(logger, every) for logger in loggers)]


def _sink_for(logger: Any, every_n_steps: int) -> Sink:  # noqa: ANN401 - any logger
    writer: Any = getattr(logger, "experiment", None)
    if hasattr(writer, "add_histogram_raw") and hasattr(writer, "add_text"):
        return TensorBoardSink(writer, every_n_steps=every_n_steps)
    return LoggerSink(logger, every_n_steps=every_n_steps)


def _log_every_n_steps(trainer: Trainer) -> int:
    """Return the trainer's setting, which it gives itself at run time; 0 under ``barebones``."""
    return int(getattr(trainer, "log_every_n_steps", 0))


def _is_supported(trainer: Trainer) -> bool:
    strategy = type(trainer.strategy).__name__
    if "DeepSpeed" not in strategy and "FSDP" not in strategy:
        return True
    warnings.warn(
        f"gradguard needs whole gradients on each rank, got {strategy}, which keeps only a part: "
        "nothing will be watched. Use DDP or a single device.",
        stacklevel=2,
    )
    return False


def _gradient_scale(trainer: Trainer, optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """Return the factor that is still in the gradients: fused optimizers unscale in their step."""
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    return _loss_scale(trainer, optimizer.param_groups[0]["params"][0].device)


def _loss_scale(trainer: Trainer, device: torch.device) -> torch.Tensor | None:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None:
        return None
    # Scaling a one gives the factor without asking the device for it, as `get_scale` would.
    scale: torch.Tensor = scaler.scale(torch.ones((), device=device))
    return scale


def _index_of(
    optimizer: torch.optim.Optimizer, optimizers: Sequence[torch.optim.Optimizer]
) -> int | None:
    return next((i for i, other in enumerate(optimizers) if other is optimizer), None)


def _number(value: float | torch.Tensor) -> float:
    """Return a learning rate; one that lives in a tensor is left alone, since reading it waits."""
    return float("nan") if isinstance(value, torch.Tensor) else float(value)


def _as_tuple(globs: Sequence[str] | str) -> tuple[str, ...]:
    return (globs,) if isinstance(globs, str) else tuple(globs)


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        msg = f"`{argument}` must be {' or '.join(map(repr, choices))}, got {value!r}."
        raise ValueError(msg)
