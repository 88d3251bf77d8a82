"""From gradients to `Frame`: scope, measure, and the one copy to the host.

In: a model and the moments of its training steps. Out: frames, one step later. The probe
never writes to a parameter, a gradient, the optimizer or the random state, and never waits
for the device while a step is going on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_gradguard import measure
from lightning_gradguard.assemble import Layout, StepContext, assemble
from lightning_gradguard.errors import NoGradientError
from lightning_gradguard.frame import Frame
from lightning_gradguard.order import CallOrder
from lightning_gradguard.scope import GroupBy, Scope, WatchedTensor, owner, unwrap
from lightning_gradguard.snapshot import (
    Snapshot,
    gradient_values,
    measure_update,
    refuse_unsupported,
    take_snapshot,
)
from lightning_gradguard.timesteps import TimeSteps
from lightning_gradguard.transfer import Transfer

__all__ = ["Probe"]


@dataclass(eq=False)
class _Arriving:
    """A step whose numbers are on their way."""

    context: StepContext
    layout: Layout
    transfer: Transfer
    stepped: bool


@dataclass(eq=False)
class _Seen:
    """What has been learned of one optimizer's parameters."""

    wanted: frozenset[int]
    tensors: tuple[WatchedTensor, ...]
    modules: frozenset[str]
    received: set[str] = field(default_factory=set)


class Probe:
    """Read gradients and updates of a model.

    `read` is all that a plain training loop needs. Adapters call `before_update` and
    `after_update` around the optimizer's step and `collect` whenever they like.

    Args:
        model: Its trainable parameters are watched.
        include: Globs of layers or parameters to watch; empty means all.
        exclude: Globs of layers or parameters to leave out.
        group_by: Whether a row of the frame is a ``"module"`` or a ``"parameter"``.

    Raises:
        ValueError: An option has a wrong value or a glob matches nothing.

    Cost:
        Per observed step: about one and a half reads of all gradients, a sample of the
        parameters, and one asynchronous copy of a few numbers per tensor. No host sync.

    Distributed:
        No collective. Gradients must be whole on each rank, as under DDP.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 1.0)
        >>> probe = Probe(model)
        >>> model(torch.tensor([[3.0, 4.0]])).sum().backward()
        >>> frame = probe.read(step=0)
        >>> frame.layers, frame.grad_norm.tolist(), frame.global_grad_norm
        (('(root)',), [5.0], 5.0)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        group_by: GroupBy = "module",
    ) -> None:
        if group_by not in {"module", "parameter"}:
            msg = f"`group_by` must be 'module' or 'parameter', got {group_by!r}."
            raise ValueError(msg)
        model = unwrap(model)
        self._model = model
        self._include, self._exclude = tuple(include), tuple(exclude)
        self._group_by: GroupBy = group_by
        self.scope = self._scan(check=True)
        self.time_steps = TimeSteps(model, [tensor.parameter for tensor in self.scope.tensors])
        self._order = CallOrder(model)
        self._seen: dict[int, _Seen] = {}
        self._open: dict[int, Snapshot] = {}
        self._arriving: list[_Arriving] = []

    def read(self, step: int, *, loss: Tensor | float | None = None) -> Frame:
        """Return the frame of the gradients as they are now.

        Call it after ``backward()`` and before ``zero_grad()``.

        Args:
            step: Optimizer steps that are complete.
            loss: Loss of the step.

        Raises:
            NoGradientError: No watched parameter has a gradient.
            ShardedGradientError: Gradients are split over ranks.

        Cost:
            Waits for the device once.
        """
        context = StepContext(step=step)
        if not self.before_update(self._model.parameters(), context, loss=loss):
            msg = (
                "`Probe.read` found no gradients. "
                "Call it after `backward()` and before `zero_grad()`."
            )
            raise NoGradientError(msg)
        self._order.remove()
        self.close_unseen_update(context.optimizer_index)
        return self.collect()[-1]

    def before_update(
        self,
        parameters: Iterable[nn.Parameter],
        context: StepContext,
        *,
        loss: Tensor | float | None = None,
        histogram: bool = False,
        gradient_scale: Tensor | None = None,
    ) -> bool:
        """Measure gradients that are complete but not used yet.

        Called again for the same optimizer before `after_update`, the new numbers replace
        the old: this is what line searches do.

        Args:
            parameters: Those of the optimizer that is about to step.
            context: Where in training this is.
            loss: Loss of the step.
            histogram: Whether to build the log2 histogram, too.
            gradient_scale: What the gradients are still multiplied by, shape ``()``.

        Returns:
            Whether there was any gradient to measure.

        Raises:
            ShardedGradientError: Gradients are split over ranks.
        """
        self.abandon_stale(context)
        seen = self._tensors_of(context.optimizer_index, list(parameters))
        tensors = [tensor for tensor in seen.tensors if tensor.parameter.grad is not None]
        if not tensors:
            return False
        seen.received.update(tensor.name for tensor in tensors)
        with torch.no_grad():
            step = take_snapshot(seen.tensors, tensors, context, gradient_scale)
            if histogram:
                values = gradient_values(step.parameters)
                step.sums["histogram"] = measure.histogram(step.gradient_sample, values)
            if loss is not None:
                step.sums["loss"] = torch.as_tensor(loss, device=step.gradient_sample.device)
            for layer, squares in self.time_steps.take(seen.modules).items():
                scaled = squares if gradient_scale is None else squares / gradient_scale.square()
                step.sums[f"time/{layer}"] = scaled
        self._open[context.optimizer_index] = step
        return True

    def after_update(self, optimizer_index: int) -> None:
        """Measure what the optimizer's step did, and send everything to the host."""
        step = self._open.get(optimizer_index)
        if step is None:
            return
        with torch.no_grad():
            self._close(optimizer_index, measure_update(step), stepped=True)

    def close_unseen_update(self, optimizer_index: int) -> None:
        """Close a step whose update cannot be measured: it stays NaN in the frame."""
        self._close(optimizer_index, {}, stepped=True)

    def abandon_stale(self, context: StepContext) -> None:
        """Close a step of an earlier batch that `after_update` never saw: it was not made.

        Args:
            context: The step that is about to begin. Within one batch it takes the place of
                the open one instead, since a line search looks at gradients several times.
        """
        stale = self._open.get(context.optimizer_index)
        here = (context.epoch, context.batch_idx)
        if stale is not None and (stale.context.epoch, stale.context.batch_idx) != here:
            self._close(context.optimizer_index, {}, stepped=False)

    def collect(self) -> list[Frame]:
        """Return the frames of all closed steps, oldest first.

        Cost:
            Waits for copies that are still on their way.
        """
        arrived, self._arriving = self._arriving, []
        return [
            assemble(step.layout, step.transfer.arrive(), step.context, stepped=step.stepped)
            for step in arrived
        ]

    def flush(self) -> list[Frame]:
        """Close what is open, remove every hook and return the remaining frames."""
        self.remove_hooks()
        for optimizer_index in tuple(self._open):
            self._close(optimizer_index, {}, stepped=False)
        return self.collect()

    def remove_hooks(self) -> None:
        """Leave the model as it was found."""
        self._order.remove()
        self.time_steps.disarm()

    def end_first_step(self) -> None:
        """Stop watching the order of calls; the layers' order stays as it is."""
        self._order.remove()

    @property
    def never_received(self) -> tuple[str, ...]:
        """Names of parameters that an optimizer has but that never had a gradient."""
        return tuple(
            tensor.name
            for seen in self._seen.values()
            for tensor in seen.tensors
            if tensor.name not in seen.received
        )

    @property
    def compiled_modules(self) -> tuple[str, ...]:
        """Names of compiled modules, inside which depth order is registration order."""
        return tuple(self._order.compiled)

    def _close(
        self, optimizer_index: int, update_sums: dict[str, Tensor], *, stepped: bool
    ) -> None:
        step = self._open.pop(optimizer_index, None)
        if step is None:
            return
        transfer = Transfer({**step.sums, **update_sums})
        self._arriving.append(_Arriving(step.context, step.layout, transfer, stepped))

    def _scan(self, *, check: bool) -> Scope:
        return Scope.of(
            self._model,
            include=self._include,
            exclude=self._exclude,
            group_by=self._group_by,
            check=check,
        )

    def _tensors_of(self, optimizer_index: int, parameters: list[nn.Parameter]) -> _Seen:
        """Return the optimizer's tensors, looking again when its parameters changed."""
        # Frozen ones are left out here, too, so that one that thaws is noticed.
        wanted = frozenset(id(parameter) for parameter in parameters if parameter.requires_grad)
        seen = self._seen.get(optimizer_index)
        if seen is not None and seen.wanted == wanted and not self.scope.is_outdated:
            return seen
        known = {id(tensor.parameter) for tensor in self.scope.tensors}
        if self.scope.is_outdated or not wanted <= known:
            self.scope = self._scan(check=False)
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        tensors = self.scope.in_depth_order(trained, self._order.calls)
        refuse_unsupported(tensors)
        modules = frozenset(owner(tensor.name) for tensor in tensors)
        received = seen.received if seen else set()
        self._seen[optimizer_index] = _Seen(wanted, tensors, modules, received)
        return self._seen[optimizer_index]
