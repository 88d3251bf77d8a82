"""`GradientGuard`: a monitor that may act.

In: a `Trainer` that calls hooks. Out: the moments of training, to a `Guard`, beside those that a
monitor hands to its `Session`. Nothing is decided here.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from lightning_gradguard import doctor, options, policy, trainers
from lightning_gradguard.alerts.settings import AlertsLike
from lightning_gradguard.audit import Action
from lightning_gradguard.budget import Budget
from lightning_gradguard.callbacks.monitor import GradientMonitor
from lightning_gradguard.detectors import Detector
from lightning_gradguard.detectors.defaults import Sensitivity
from lightning_gradguard.eager import eager
from lightning_gradguard.errors import TrainingStoppedError
from lightning_gradguard.findings import Finding
from lightning_gradguard.first_steps import Bypassed, Misplaced
from lightning_gradguard.guard import Guard
from lightning_gradguard.policy import Clip, Response, check_traits
from lightning_gradguard.remedies import Remedy, Rollback
from lightning_gradguard.remedies.gradients import Known
from lightning_gradguard.remedies.traits import find
from lightning_gradguard.return_point import ReturnPoint
from lightning_gradguard.rosters import roster_of
from lightning_gradguard.scope import GroupBy
from lightning_gradguard.session import OnError
from lightning_gradguard.sinks import Sink

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

__all__ = ["GradientGuard"]

_log: Final = logging.getLogger(__name__)


class GradientGuard(GradientMonitor):
    """A `GradientMonitor` that acts, in the ways that it is told to.

    It clips in place, before the trainer's own clipping; it leaves whole steps out, so that
    weights, momenta, weight decay, gradient scaler and buffers are as if the batch had never
    come; it lowers learning rates around steps, so that schedulers never see it; it goes back to
    an earlier state; it stops. Every action is in `actions`.

    Attributes:
        remedies: Everything that it may do.

    Args:
        clip: ``"norm"``, ``"value"``, ``"autoclip"``, ``"zclip"``, ``"agc"`` or ``"robust"``, a
            largest norm, one of `remedies`, or one of these for each glob of layers, such as
            ``{"critic.*": "agc", "*": 1.0}``, of which the first that matches holds.
        on_nonfinite: What to do about NaN and infinity: ``"skip"``, ``"rollback"``, ``"stop"``
            or ``"raise"``; or one of these for each glob of layers.
        on_exploding: What to do about exploding gradients: ``"skip"``, ``"reduce_lr"``,
            ``"rollback"``, ``"stop"`` or ``"raise"``. Skipping is decided in the same step, by
            the gradient norm; the others follow what the detectors find.
        on_diverging: What to do when the loss runs away: ``"reduce_lr"``, ``"rollback"``,
            ``"stop"`` or ``"raise"``.
        on_loss_spike: ``"skip"`` leaves out steps whose loss is far above the latest ones.
        remedies: Remedies of your own, or those of `remedies` with other settings.
        policy: ``"auto"`` takes what does best on trainings that fail and costs healthy ones
            nothing, see ``docs/acting.md``.
        dry_run: Decide and record everything, and change nothing.
        max_consecutive_skips: More steps left out in a row than this end the training.
        max_skipped_fraction: So does a larger share of all steps, after the first hundred.
        include: As for `GradientMonitor`; clipping and skipping are not limited by it.
        exclude: As for `GradientMonitor`; clipping and skipping are not limited by it.
        ignore: As for `GradientMonitor`; what is ignored is not acted on, either, but by clipping
            and skipping.
        on_finding: As for `GradientMonitor`.
        inside_every_n_steps: As for `GradientMonitor`.
        every_n_steps: As for `GradientMonitor`; clipping and skipping look at every step.
        group_by: As for `GradientMonitor`.
        exact: As for `GradientMonitor`.
        max_overhead: As for `GradientMonitor`; acting is not thinned.
        sensitivity: As for `GradientMonitor`.
        detectors: As for `GradientMonitor`.
        sinks: As for `GradientMonitor`; they are told of actions, too.
        history: As for `GradientMonitor`, with the actions.
        report: As for `GradientMonitor`.
        alerts: As for `GradientMonitor`.
        on_error: ``"raise"`` lets a fault of a remedy or of the guard itself end the run.
            With ``"warn"`` it is reported at ``CRITICAL``, since the run is then unprotected.
        name: As for `GradientMonitor`.

    Raises:
        ValueError: An argument has a wrong value, there is nothing to do, or, when training
            starts, the trainer is set up so that acting would not work.
        TypeError: An argument is of a kind that cannot work.

    Cost:
        Beside the monitor's: one multiplication of gradients that are clipped, one copy of the
        buffers that change where steps may be left out. No host sync, but to leave steps out with
        an optimizer that is not fused, or under a gradient scaler.

    Distributed:
        All ranks act alike. Where steps may be left out, the loss is averaged over ranks once per
        step; where findings are acted on, one more reduction of a few numbers. Sharded strategies
        are refused.

    State:
        The monitor's, what remedies have learned, actions and counts, as JSON types.

    Example:
        >>> guard = GradientGuard(clip="robust", on_nonfinite="skip")
        >>> guard.actions
        ()
    """

    def __init__(
        self,
        *,
        clip: Clip | None = None,
        on_nonfinite: Response | dict[str, str] | None = None,
        on_exploding: Response | dict[str, str] | None = None,
        on_diverging: Response | dict[str, str] | None = None,
        on_loss_spike: Response | None = None,
        remedies: Sequence[Remedy] | None = None,
        policy: str | None = None,
        dry_run: bool = False,
        max_consecutive_skips: int = 20,
        max_skipped_fraction: float = 0.25,
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
        options.check_bool(dry_run=dry_run)
        self.remedies: list[Remedy] = _remedies(
            clip=clip,
            nonfinite=on_nonfinite,
            exploding=on_exploding,
            diverging=on_diverging,
            loss_spike=on_loss_spike,
            remedies=remedies,
            policy_name=policy,
        )
        self._dry_run = dry_run
        self._limits = max_consecutive_skips, max_skipped_fraction
        Budget(*self._limits)  # says at once what is wrong with them
        self._guard: Guard | None = None
        self._retired: Guard | None = None
        self._has_ranks = False
        super().__init__(
            include=include,
            exclude=exclude,
            ignore=ignore,
            on_finding=on_finding,
            every_n_steps=every_n_steps,
            inside_every_n_steps=inside_every_n_steps,
            group_by=group_by,
            exact=exact,
            max_overhead=max_overhead,
            sensitivity=sensitivity,
            detectors=detectors,
            sinks=sinks,
            history=history,
            report=report,
            alerts=alerts,
            on_error=on_error,
            name=name,
        )
        check_traits(self.remedies, self._inspector.may_find)
        self._listener = self._hear

    def _forget(self) -> None:
        super()._forget()
        self._actions: tuple[Action, ...] = ()
        self._guard = None
        self._guard_state: Mapping[str, Any] = {}
        self._misplaced: Misplaced | None = None
        self._bypassed: Bypassed | None = None

    @property
    def actions(self) -> tuple[Action, ...]:
        """What was done, oldest first; the latest ten thousand."""
        return self._actions if self._guard is None else self._guard.audit.actions

    @property
    def dry_run(self) -> bool:
        """Whether it changes nothing."""
        return self._dry_run

    # Lightning's hooks.

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that acting will work, then look at the model and stand around the optimizers."""
        if trainers.is_disabled():
            super().on_fit_start(trainer, pl_module)
            return
        doctor.check(trainer, pl_module, self)
        super().on_fit_start(trainer, pl_module)
        self._start_guard(trainer, pl_module)

    def _start_guard(self, trainer: Trainer, pl_module: LightningModule) -> None:
        guard = Guard(
            pl_module,
            self.remedies,
            roster_of=lambda optimizer: roster_of(pl_module, optimizer, self._calls),
            ranks=trainers.ranks(trainer),
            dry_run=self._dry_run,
            budget=Budget(*self._limits),
            scaler=trainers.scaler(trainer),
            many_steps_per_batch=not pl_module.automatic_optimization,
            on_error=self._on_error,
            tell=self._tell,
        )
        for index, optimizer in enumerate(trainer.optimizers):
            self._attach_guard(trainer, guard, optimizer, index)
        if self._guard_state:
            self._restore_guard(guard)
        self._guard, self._has_ranks = guard, trainer.world_size > 1
        self._keep_states(trainer, pl_module, guard)
        if pl_module.automatic_optimization:
            self._misplaced = Misplaced(trainer.optimizers)
        self._bypassed = Bypassed(pl_module, trainer.optimizers)
        if self._session is not None:
            self._session.acts = guard.acts

    def _attach_guard(
        self, trainer: Trainer, guard: Guard, optimizer: torch.optim.Optimizer, index: int
    ) -> None:
        def decide_late() -> None:
            context = self._context(trainer, trainer.lightning_module, index)
            scale = trainers.scale_in(optimizer)
            self._act(lambda guard: guard.decide(context, self.episodes, scale=scale))

        guard.attach(index, optimizer, decide_late)

    def _keep_states(self, trainer: Trainer, pl_module: LightningModule, guard: Guard) -> None:
        rollbacks = find(self.remedies, Rollback)
        if not rollbacks or self._dry_run:
            return
        guard.keep_states(
            ReturnPoint.of(
                rollbacks,
                pl_module,
                trainer.optimizers,
                lambda: trainers.others_with_state(trainer),
                max_bytes=trainers.share_of_host_memory(trainer),
                looks_every=lambda: 1 if self._session is None else self._session.interval,
                extra=self._inspector.learned,
                restore_extra=self._forget_since,
            )
        )

    def _forget_since(self, learned: Mapping[str, Any]) -> None:
        """Let detectors know what they knew then, after they have seen the last step."""
        if self._session is not None:
            self._session.catch_up()
        self._inspector.forget_since(learned)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state that training starts from, after a checkpoint has been loaded."""
        self._act(lambda guard: guard.start())

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, *_: object
    ) -> None:
        """Keep what the forward pass may change."""
        super().on_train_batch_start(trainer, pl_module, batch)
        self._act(lambda guard: guard.start_batch())

    @eager
    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None:
        """Note the loss."""
        super().on_before_backward(trainer, pl_module, loss)
        scale = trainers.loss_scale(trainer, loss.device)
        self._act(lambda guard: guard.add_loss(loss, scale))

    @eager
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of gradients that have just been made."""
        super().on_after_backward(trainer, pl_module)
        if self._bypassed is not None:
            self._bypassed.after_backward()

    @eager
    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at gradients, then act on them."""
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        index = trainers.index_of(optimizer, trainer)
        if index is None:
            return
        scale = trainers.gradient_scale(trainer, optimizer)
        context = self._context(trainer, pl_module, index)

        def decide(guard: Guard) -> None:
            self._attach_guard(trainer, guard, optimizer, index)
            guard.decide(context, self.episodes, known=self._known(index), scale=scale)

        self._act(decide)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:  # noqa: ANN401 - Lightning's own
        """Finish the batch; go back or stop, if that was decided."""
        super().on_train_batch_end(trainer, *args)
        self._look_at_first_steps()
        self._act(lambda guard: guard.end_batch())
        if self._guard is not None and self._guard.stop_reason is not None:
            # Again after each batch: `min_steps` would make the trainer forget it.
            trainer.should_stop = True

    def _look_at_first_steps(self) -> None:
        if self._misplaced is not None and self._misplaced.is_over:
            self._misplaced.remove()
            self._misplaced = None
        if self._bypassed is not None:
            self._bypassed.end_batch()
            self._bypassed = None if self._bypassed.is_over else self._bypassed

    def _finish(self, error: BaseException | None = None) -> None:
        try:
            self._act(self._end)
            if self._retired is not None:
                self._retired.detach()
            if self._misplaced is not None:
                self._misplaced.remove()
        finally:
            super()._finish(error)
            self._guard = self._retired = self._misplaced = self._bypassed = None

    def _end(self, guard: Guard) -> None:
        guard.detach()
        self._guard_state, self._actions = guard.state_dict(), guard.audit.actions

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON types."""
        state = super().state_dict()  # first, as it may judge what the guard is then told of
        guard = self._guard_state if self._guard is None else self._guard.state_dict()
        return {**state, "guard": guard}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`, now or when training starts."""
        watching = {name: part for name, part in state_dict.items() if name != "guard"}
        super().load_state_dict(watching)
        self._guard_state = state_dict.get("guard", {})
        if self._guard is not None and self._guard_state:
            self._restore_guard(self._guard)

    # The rest.

    def _restore_guard(self, guard: Guard) -> None:
        try:
            guard.load_state_dict(self._guard_state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            warnings.warn(
                f"gradguard cannot read what its remedies had learned ({error!r}); all of it "
                "starts afresh. Use the version and the remedies of that checkpoint.",
                stacklevel=2,
            )

    def _act(self, do: Callable[[Guard], object]) -> None:
        """Let the guard do something; a fault of its own must not end the training."""
        if self._guard is None:
            return
        try:
            do(self._guard)
        except TrainingStoppedError:
            raise  # this is what it was told to do
        except Exception as error:
            if self._on_error == "raise" or self._has_ranks:
                raise  # of several ranks one alone cannot stop acting: the others would wait
            guard, self._guard = self._guard, None
            self._retired, self._actions = guard, guard.audit.actions
            reason = f"{type(error).__name__}: {error}"
            guard.switch_off(reason)
            _log.critical("gradguard can no longer act: the run is unprotected. %s", reason)
            if self._alerting is not None:
                self._alerting.switched_off(reason, is_guard=True)

    @property
    def _calls(self) -> Mapping[str, int]:
        return {} if self._session is None else self._session.probe.calls

    def _known(self, index: int) -> Known | None:
        found = None if self._session is None else self._session.probe.squares(index)
        return None if found is None else Known(*found)

    def _hear(self, *news: Any) -> None:  # noqa: ANN401 - handed on
        if self._guard is not None:
            self._guard.hear(*news)

    def _tell(self, action: Action) -> None:
        if self._session is not None:
            self._session.tell(action)

    def _guarded_step(self, index: int) -> Mapping[str, torch.Tensor | float] | None:
        return None if self._guard is None else self._guard.done_to(index)


def _remedies(
    *,
    clip: Clip | None,
    nonfinite: str | Mapping[str, str] | None,
    exploding: str | Mapping[str, str] | None,
    diverging: str | Mapping[str, str] | None,
    loss_spike: str | None,
    remedies: Sequence[Remedy] | None,
    policy_name: str | None,
) -> list[Remedy]:
    """Return everything that a guard was told to do."""
    options.check_parts("remedies", remedies, method="decide")
    if policy_name is not None:
        options.check_choice("policy", policy_name, ("auto",))
    always = ("rollback", "stop", "raise")
    found = [
        *policy.clippers(clip),
        *policy.responses("nonfinite", nonfinite, ("skip", *always)),
        *policy.responses("exploding", exploding, ("skip", "reduce_lr", *always)),
        *policy.responses("diverging", diverging, ("reduce_lr", *always)),
        *policy.responses("loss_spike", loss_spike, ("skip",)),
        *(remedies or ()),
        *(policy.auto_policy() if policy_name == "auto" else ()),
    ]
    if not found:
        msg = (
            "`GradientGuard` must have something to do, got nothing. Say `policy='auto'`, or what "
            "to do: `clip=`, `on_nonfinite=`, `on_exploding=`, `on_diverging=`, `on_loss_spike=` "
            "or `remedies=`. To look only, use `GradientMonitor`."
        )
        raise ValueError(msg)
    return found
