"""From gradients to `Frame`: scope, measure, and the one copy to the host.

In: a model and the moments of its training steps. Out: frames, one step later. The probe
never writes to a parameter, a gradient, the optimizer or the random state, and never waits
for the device while a step is going on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from lightning_gradguard import measure
from lightning_gradguard.assemble import Layout, StepContext, assemble, without_gradient
from lightning_gradguard.eager import eager
from lightning_gradguard.errors import NoGradientError
from lightning_gradguard.frame import Frame
from lightning_gradguard.inside.looks import Looks
from lightning_gradguard.measure import Numbers
from lightning_gradguard.order import CallOrder
from lightning_gradguard.scope import GroupBy, Scope, owner, unwrap
from lightning_gradguard.snapshot import Snapshot, measure_update, take_snapshot
from lightning_gradguard.structure import layer_notes
from lightning_gradguard.timesteps import TimeSteps
from lightning_gradguard.transfer import Transfer
from lightning_gradguard.units import silent_units
from lightning_gradguard.watched import Watched, Watchlist

__all__ = ["Probe"]

_LEFT_OUT: Final = "not watched: `include` or `exclude` leaves it out"


@dataclass(eq=False)
class _Open:
    """A step that has been measured but not made yet."""

    snapshot: Snapshot
    watched: Watched


@dataclass(eq=False)
class _Arriving:
    """A step whose numbers are on their way; its samples are let go."""

    context: StepContext
    layout: Layout
    watched: Watched
    transfer: Transfer
    stepped: bool
    touched: bool
    may_be_refused: bool

    def arrive(self) -> Frame:
        sums = self.transfer.arrive()
        refused = self.may_be_refused and bool(sums["nonfinite"].sum() > 0)
        refused = refused or bool(sums.get("skipped", 0.0) > 0)
        frame = assemble(self.layout, sums, self.context, stepped=self.stepped and not refused)
        coefficient = frame.clip_coefficient
        is_clipped = coefficient is not None and coefficient < 1.0 - 1e-6
        self.watched.note_clipping(seen=self.touched or is_clipped or bool(frame.clipped_fraction))
        return frame


@dataclass(eq=False)
class _Absent:
    """A step of an optimizer whose parameters have never had a gradient."""

    context: StepContext
    watched: Watched
    loss: Tensor | float | None

    def arrive(self) -> Frame:
        loss = None if self.loss is None else float(self.loss)
        return without_gradient(self.watched.layers, self.watched.roles, self.context, loss)


class Probe:
    """Read gradients and updates of a model.

    `read` is all that a plain training loop needs. Adapters call `before_update` and
    `after_update` around the optimizer's step and `collect` whenever they like.

    Args:
        model: Its trainable parameters are watched.
        include: Globs of layers or parameters to watch; empty means all.
        exclude: Globs of layers or parameters to leave out.
        group_by: Whether a row of the frame is a ``"module"`` or a ``"parameter"``.
        exact: Whether large tensors are read whole where a sample would do: zeros, histogram,
            parameter and update norms. For small models and for doubts; it takes several times
            the memory of the parameters.

    Raises:
        ValueError: An option has a wrong value or a glob matches nothing.

    Cost:
        Per observed step: one read of all gradients, a sample of the parameters before and
        after the update, and one asynchronous copy of a few numbers per tensor. No host sync.

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
        exact: bool = False,
    ) -> None:
        if group_by not in {"module", "parameter"}:
            msg = f"`group_by` must be 'module' or 'parameter', got {group_by!r}."
            raise ValueError(msg)
        model = unwrap(model)
        self._model = model

        def scan(check: bool) -> Scope:  # noqa: FBT001 - a plain function of one flag
            return Scope.of(model, include=include, exclude=exclude, group_by=group_by, check=check)

        self._watchlist = Watchlist(scan, exact=exact)
        self._order = CallOrder(model)
        watched = [tensor.parameter for tensor in self.scope.tensors]
        self.time_steps, self.looks = TimeSteps(model, watched), Looks(model, watched)
        self._open: dict[int, _Open] = {}
        self._arriving: list[_Arriving | _Absent] = []
        self._first_batch: dict[int, Numbers] = {}

    @property
    def scope(self) -> Scope:
        """The watched parameters of the model."""
        return self._watchlist.scope

    @eager
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
        parameters = self._model.parameters()
        if not self.before_update(parameters, context, loss=loss, histogram=True):
            msg = (
                "`Probe.read` found no gradients. "
                "Call it after `backward()` and before `zero_grad()`."
            )
            raise NoGradientError(msg)
        self._order.remove()
        self.close_unseen_update(context.optimizer_index)
        return self.collect()[-1]

    @eager
    def before_update(
        self,
        parameters: Iterable[nn.Parameter],
        context: StepContext,
        *,
        loss: Tensor | float | None = None,
        histogram: bool = False,
        units: bool = True,
        batch: Tensor | None = None,
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
            units: Whether to tell which units get no gradient, too.
            batch: A number that is finite if the batch is, shape ``()``.
            gradient_scale: What the gradients are still multiplied by, shape ``()``.

        Returns:
            Whether there was any gradient to measure.

        Raises:
            ShardedGradientError: Gradients are split over ranks.
        """
        self.abandon_stale(context)
        index = context.optimizer_index
        watched = self._watched(index, parameters)
        found = watched.with_gradient()
        if found is None:
            return False
        columns, gradients = found
        with torch.no_grad():
            step = take_snapshot(
                columns,
                gradients,
                context,
                scale=gradient_scale,
                histogram=histogram,
                watch_clipping=watched.watch_clipping,
            )
            if loss is not None:
                step.sums["loss"] = torch.as_tensor(loss, device=gradients[0].device)
            if batch is not None:
                there = gradients[0].device
                step.sums["batch"] = batch if batch.device == there else batch.to(there)
            if units:
                masks = silent_units(columns.units, gradients)
                step.sums.update({f"units/{layer}": mask for layer, mask in masks.items()})
            if (first := self._first_batch.pop(index, None)) is not None:
                step.sums["first_batch_squares"] = first
            for layer, squares in self.time_steps.take(watched.modules).items():
                scaled = squares if gradient_scale is None else squares / gradient_scale.square()
                # Of the first batch alone, whose loss was divided like that of all.
                row = watched.rows.get(layer, layer)
                step.sums[f"time/{row}"] = scaled * float(context.window_batches) ** 2
            step.sums.update(
                self.looks.take(watched.modules, gradient_scale, float(context.window_batches))
            )
        self._open[index] = _Open(step, watched)
        return True

    def note_absence(
        self,
        parameters: Iterable[nn.Parameter],
        context: StepContext,
        *,
        loss: Tensor | float | None = None,
    ) -> None:
        """Make a frame of a step without gradients, if its optimizer never had any.

        Args:
            parameters: Those of the optimizer.
            context: Where in training this is.
            loss: Of the step.
        """
        watched = self._watched(context.optimizer_index, parameters)
        if watched.layers and not watched.received:
            self._arriving.append(_Absent(context, watched, loss))

    @torch.no_grad()
    def after_first_batch(
        self,
        parameters: Iterable[nn.Parameter],
        context: StepContext,
        gradient_scale: Tensor | None = None,
    ) -> None:
        """Measure the gradient of the first of several batches that will be added up.

        Args:
            parameters: Those of the optimizer.
            context: Where in training this is.
            gradient_scale: What the gradients are multiplied by, shape ``()``.
        """
        index = context.optimizer_index
        found = self._watched(index, parameters).with_gradient()
        if found is None:
            return
        columns, gradients = found
        backend = columns.backend
        values, plan, _ = columns.read(gradients)
        numbers = backend.wide(measure.take_sample(plan, values))
        with np.errstate(all="ignore"):
            squares = measure.exact_squares(backend, plan, values, numbers).sum()
            if gradient_scale is not None:
                squares = squares / backend.wide(gradient_scale) ** 2
            self._first_batch[index] = squares * context.window_batches**2

    @torch.no_grad()
    def is_finite(
        self, parameters: Iterable[nn.Parameter], optimizer_index: int = 0
    ) -> bool | Tensor:
        """Tell cheaply whether all gradients are finite.

        Returns:
            The answer on the host; on a device, a number that is finite if they are.
        """
        found = self._watched(optimizer_index, parameters).with_gradient()
        if found is None:
            return True
        columns, gradients = found
        values, plan, _ = columns.read(gradients)
        return columns.backend.finite_sum(plan, values)

    @eager
    def after_update(
        self, optimizer_index: int, guarded: Mapping[str, Tensor | float] | None = None
    ) -> None:
        """Measure what the optimizer's step did, and send everything to the host.

        Args:
            optimizer_index: Position of the optimizer.
            guarded: What a guard did to the step, where one did anything: ``skipped``,
                ``lr_factor`` and ``guard_clip_coefficient``, each a number.
        """
        step = self._open.get(optimizer_index)
        if step is None:
            return
        with torch.no_grad():
            update = measure_update(step.snapshot)
            for name, number in (guarded or {}).items():
                known = isinstance(number, Tensor)
                update[name] = number if known else np.asarray(number, dtype=np.float64)
            self._close(optimizer_index, update, stepped=True)

    def squares(self, optimizer_index: int) -> tuple[Sequence[nn.Parameter], Tensor] | None:
        """Return what was measured of the step that goes on, or None.

        Returns:
            Parameters that have a gradient, and the sum of squares of each one's gradient,
            ``(parameters,)``, without any gradient scale.
        """
        step = self._open.get(optimizer_index)
        if step is None:
            return None
        columns = step.snapshot.columns
        return columns.parameters, torch.as_tensor(step.snapshot.squares)

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
        if stale is None:
            return
        then = stale.snapshot.context
        if (then.epoch, then.batch_idx) != (context.epoch, context.batch_idx):
            self._close(context.optimizer_index, {}, stepped=False)

    @eager
    def collect(self) -> list[Frame]:
        """Return the frames of all closed steps, oldest first.

        Cost:
            Waits for copies that are still on their way.
        """
        arrived, self._arriving = self._arriving, []
        return [step.arrive() for step in arrived]

    def flush(self) -> list[Frame]:
        """Close what is open, remove every hook and return the remaining frames."""
        self.remove_hooks()
        for optimizer_index in tuple(self._open):
            self._close(optimizer_index, {}, stepped=False)
        return self.collect()

    def release(self) -> None:
        """Leave the model as it was found, and let go of all that is pending."""
        self.remove_hooks()
        self._open.clear()
        self._arriving.clear()
        self._first_batch.clear()
        self._watchlist.release()

    def remove_hooks(self) -> None:
        """Leave the model as it was found."""
        self._order.remove()
        self.time_steps.disarm()
        self.looks.forget()

    def end_first_step(self) -> None:
        """Stop watching the order of calls; the layers' order stays as it is."""
        if self._order.remove():
            self.time_steps.add_loops(self._order.counts)

    def layer_notes(self) -> dict[str, tuple[str, ...]]:
        """Say what is special about each layer, see `structure`, and about each row."""
        notes = layer_notes(self._model, self._order.calls)
        rows = {tensor.layer: notes.get(owner(tensor.name), ()) for tensor in self.scope.tensors}
        watched = {owner(tensor.name) for tensor in self.scope.tensors}
        left_out = {
            layer: (*mine, _LEFT_OUT)
            for layer, mine in notes.items()
            if not mine and layer not in watched
        }
        return {**notes, **left_out, **rows}

    @property
    def calls(self) -> Mapping[str, int]:
        """For each module name, the rank of its first call, as far as it is known."""
        return self._order.calls

    @property
    def never_received(self) -> tuple[str, ...]:
        """Names of parameters that an optimizer has but that never had a gradient."""
        return self._watchlist.never_received

    @property
    def compiled_modules(self) -> tuple[str, ...]:
        """Names of compiled modules, inside which depth order is registration order."""
        return tuple(self._order.compiled)

    def _watched(self, optimizer_index: int, parameters: Iterable[nn.Parameter]) -> Watched:
        return self._watchlist.of(optimizer_index, list(parameters), self._order.calls)

    def _close(
        self, optimizer_index: int, update_sums: dict[str, Numbers], *, stepped: bool
    ) -> None:
        step = self._open.pop(optimizer_index, None)
        if step is None:
            return
        snapshot = step.snapshot
        self._arriving.append(
            _Arriving(
                snapshot.context,
                snapshot.layout,
                step.watched,
                Transfer({**snapshot.sums, **update_sums}),
                stepped,
                snapshot.touched,
                snapshot.may_be_refused,
            )
        )
