"""A set of parameters, laid out once for all steps in which the same ones have a gradient.

In: watched tensors. Out: in which order they are read, how, and which layer each belongs to.
Knows sizes and names; never looks at a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from lightning_gradguard.assemble import Layout
from lightning_gradguard.errors import GradGuardError, ShardedGradientError
from lightning_gradguard.measure import (
    SAMPLE_SIZE,
    Backend,
    Plan,
    as_vector,
    backend_for,
    join,
    plain_values,
    runs,
)
from lightning_gradguard.roles import Role
from lightning_gradguard.scope import WatchedTensor, is_matrix
from lightning_gradguard.units import UnitTensor

__all__ = ["Columns", "refuse_unsupported"]


@dataclass(eq=False)
class Columns:
    """Parameters as columns of arrays: those that are read whole, then those that are sampled.

    Attributes:
        parameters: One per column.
        plan: How their values are read, and their gradients' unless sparse.
        layout: Which layer each belongs to.
        backend: That of their device.
        units: Those whose rows are units.
    """

    parameters: tuple[nn.Parameter, ...]
    plan: Plan
    layout: Layout
    backend: Backend
    units: tuple[UnitTensor, ...] = ()

    def __post_init__(self) -> None:
        self.has_complex = any(parameter.is_complex() for parameter in self.parameters)
        self._odd: tuple[Plan, Layout] | None = None
        self._device = self.parameters[0].device
        self._shapes = [parameter.shape for parameter in self.parameters]
        self._numels = [parameter.numel() for parameter in self.parameters]
        self._pointers: list[int] = []
        self._views: list[Tensor] = []

    @classmethod
    def of(
        cls,
        layers: Sequence[str],
        tensors: Sequence[WatchedTensor],
        *,
        roles: Mapping[str, Role] | None = None,
        exact: bool = False,
    ) -> Columns:
        """Lay out parameters.

        Args:
            layers: All layers of the optimizer, in depth order.
            tensors: Those that have a gradient, at least one, all on one device.
            roles: What each layer is; those of the tensors by default.
            exact: Whether all are read whole, whatever their size.
        """
        sizes = {tensor: _num_reals(tensor.parameter) for tensor in tensors}
        large = {t: size > SAMPLE_SIZE and not exact for t, size in sizes.items()}
        ordered = sorted(tensors, key=lambda t: (large[t], *_kind(t.parameter)))
        plan = Plan.of(
            [sizes[t] for t in ordered],
            num_whole=list(large.values()).count(False),
            shapes=[t.parameter.shape for t in ordered],
        )
        place = {layer: index for index, layer in enumerate(layers)}
        size = np.array(plan.sizes, dtype=np.float64)
        layout = Layout(
            layers=tuple(layers),
            row=np.array([place[t.layer] for t in ordered], dtype=np.intp),
            size=size,
            stored=size,
            is_weight=np.array([is_matrix(t.parameter) for t in ordered], dtype=np.bool_),
            is_sampled=np.array([large[t] for t in ordered], dtype=np.bool_),
            roles=_roles(layers, roles or {t.layer: t.role for t in ordered}),
        )
        parameters = tuple(tensor.parameter for tensor in ordered)
        units = [UnitTensor(t.layer, i, t.unit_dim) for i, t in enumerate(ordered) if t.has_units]
        return cls(parameters, plan, layout, backend_for(parameters[0].device), tuple(units))

    @property
    def is_current(self) -> bool:
        """Whether the parameters are still those that were laid out: none has another shape."""
        if [parameter.numel() for parameter in self.parameters] != self._numels:
            return False
        if [parameter.data_ptr() for parameter in self.parameters] == self._pointers:
            return True
        return all(
            parameter.shape == shape and parameter.device == self._device
            for parameter, shape in zip(self.parameters, self._shapes, strict=True)
        ) and self.has_complex == any(parameter.is_complex() for parameter in self.parameters)

    def sample_weights(self) -> Tensor:
        """Return a copy of what the plan takes of each parameter, one after another.

        The views behind it are made once, and again when a parameter was given other memory.
        """
        pointers = [parameter.data_ptr() for parameter in self.parameters]
        if pointers == self._pointers:
            return join(self._views)
        views = [
            runs(_view(parameter), stride)
            for parameter, stride in zip(self.parameters, self.plan.strides, strict=True)
        ]
        # What lies scattered in memory can only be copied, so never for the next step.
        if all(map(_shares, views, self.parameters)):
            self._views, self._pointers = views, pointers
        return join(views)

    def read(self, gradients: Sequence[Tensor]) -> tuple[Sequence[Tensor], Plan, Layout]:
        """Return gradients as real numbers in memory, and how to read them.

        Only sparse gradients, whose sizes change, need a plan of their own.
        """
        if not self.has_complex and all([g.layout is torch.strided for g in gradients]):  # noqa: C419 - a list is faster
            return gradients, self.plan, self.layout
        values = [plain_values(gradient) for gradient in gradients]
        sizes = tuple(value.numel() for value in values)
        if self._odd is None or self._odd[0].sizes != sizes:
            stored = np.array(sizes, dtype=np.float64)
            shapes = [value.shape for value in values]
            plan = Plan.of(sizes, self.plan.num_whole, shapes, can_join=False)
            self._odd = plan, replace(self.layout, stored=stored)
        return values, *self._odd


def _roles(layers: Sequence[str], known: Mapping[str, Role]) -> tuple[Role, ...]:
    return tuple(known.get(layer, "weights") for layer in layers)


def _view(parameter: nn.Parameter) -> Tensor:
    return as_vector(plain_values(parameter))


def _shares(view: Tensor, parameter: nn.Parameter) -> bool:
    return view.untyped_storage().data_ptr() == parameter.untyped_storage().data_ptr()


def _kind(parameter: nn.Parameter) -> tuple[int, tuple[int, ...]]:
    """Return what parameters that can be joined along their first dimension have in common."""
    return parameter.dim(), tuple(parameter.shape[1:])


def _num_reals(parameter: nn.Parameter) -> int:
    return parameter.numel() * (2 if parameter.is_complex() else 1)


def refuse_unsupported(tensors: Sequence[WatchedTensor]) -> None:
    """Raise for what would be measured wrongly.

    Raises:
        ShardedGradientError: A parameter is split over ranks.
        GradGuardError: The parameters are on several devices.
    """
    sharded = [tensor.name for tensor in tensors if hasattr(tensor.parameter, "placements")]
    if sharded:
        msg = (
            f"Gradients must be whole on each rank, got the sharded parameter {sharded[0]!r}. "
            "Use DDP or a single device: numbers of one shard would be wrong."
        )
        raise ShardedGradientError(msg)
    devices = {tensor.parameter.device for tensor in tensors}
    if len(devices) > 1:
        msg = (
            "The parameters of one optimizer must be on one device, got "
            f"{', '.join(sorted(map(str, devices)))}. Choose the layers of one with `include`."
        )
        raise GradGuardError(msg)
