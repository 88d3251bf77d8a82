"""What is known of one optimizer's parameters: found once, then only checked.

In: the parameters of an optimizer. Out: its watched tensors in depth order, and their columns
for whichever of them have a gradient. Looks at identities, never at values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor, nn

from lightning_gradguard.columns import Columns, refuse_unsupported
from lightning_gradguard.roles import Role
from lightning_gradguard.scope import ELSEWHERE, Scope, WatchedTensor, owner

__all__ = ["Watched", "Watchlist"]

_MOST_LAYOUTS: Final = 16
"""Sets of columns that are kept, for models in which now these and now those parts are used."""

_FIRST_LOOKS: Final = 3
_LOOKS_AFTER_CLIPPING: Final = 20
_LOOKS_BETWEEN_CHECKS: Final = 50


@dataclass(eq=False)
class Watched:
    """The watched tensors of one optimizer.

    Attributes:
        ids: Identities of the trained parameters that it was found for.
        tensors: Those that are watched, in depth order.
        exact: Whether all tensors are read whole.
        strangers: Parameters of the optimizer that the model does not have, until any of them
            has a gradient.
        received: Names of those that ever had a gradient.
    """

    ids: list[int]
    tensors: tuple[WatchedTensor, ...]
    exact: bool
    strangers: Sequence[nn.Parameter] = ()
    received: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._parameters = [tensor.parameter for tensor in self.tensors]
        self._roles = {tensor.layer: tensor.role for tensor in self.tensors}
        self._columns: dict[tuple[bool, ...], Columns] = {}
        self._all: Columns | None = None
        self._looks, self._watch_until = 0, _FIRST_LOOKS
        self.modules = frozenset(owner(tensor.name) for tensor in self.tensors)
        self.rows = _rows(self.tensors)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in depth order."""
        return (*self._roles, ELSEWHERE) if self.strangers else tuple(self._roles)

    @property
    def roles(self) -> tuple[Role, ...]:
        """What each layer is."""
        roles = tuple(self._roles.values())
        return (*roles, "foreign") if self.strangers else roles

    @property
    def watch_clipping(self) -> bool:
        """Whether gradients are to be compared before and after clipping.

        Clipping is a habit: at first, for a while after each sign of it, and now and then.
        """
        return self._looks < self._watch_until or self._looks % _LOOKS_BETWEEN_CHECKS == 0

    def note_clipping(self, *, seen: bool) -> None:
        """Take note of a look, and whether anything had changed the gradients."""
        self._looks += 1
        if seen:
            self._watch_until = self._looks + _LOOKS_AFTER_CLIPPING

    def with_gradient(self) -> tuple[Columns, list[Tensor]] | None:
        """Return columns and gradients of what has one now, or None."""
        if self.strangers and any(p.grad is not None for p in self.strangers):
            # Used after all, by a module that is not registered: nothing to do with us.
            self.strangers = ()
            self._columns.clear()
            self._all = None
        if self._all is not None and self._all.is_current:
            found = [parameter.grad for parameter in self._all.parameters]
            gradients = [gradient for gradient in found if gradient is not None]
            if len(gradients) == len(found):
                return self._all, gradients
        present = tuple(parameter.grad is not None for parameter in self._parameters)
        if not any(present):
            return None
        columns = self._columns.get(present)
        if columns is None or not columns.is_current:
            columns = self._lay_out(present)
        if all(present):
            self._all = columns
        return columns, [p.grad for p in columns.parameters if p.grad is not None]

    def _lay_out(self, present: Sequence[bool]) -> Columns:
        tensors = [t for t, is_there in zip(self.tensors, present, strict=True) if is_there]
        self.received.update(tensor.name for tensor in tensors)
        if len(self._columns) >= _MOST_LAYOUTS:
            del self._columns[next(iter(self._columns))]
        columns = Columns.of(
            self.layers,
            tensors,
            roles=dict(zip(self.layers, self.roles, strict=True)),
            exact=self.exact,
        )
        self._columns[tuple(present)] = columns
        return columns


class Watchlist:
    """The watched tensors of every optimizer.

    Args:
        scan: Looks through the model; given whether wrong globs are an error.
        exact: Whether all tensors are read whole.
    """

    def __init__(self, scan: Callable[[bool], Scope], *, exact: bool) -> None:
        self.scope = scan(True)  # noqa: FBT003 - the one place
        self._scan, self._exact = scan, exact
        self._watched: dict[int, Watched] = {}

    def of(
        self,
        optimizer_index: int,
        parameters: Sequence[nn.Parameter],
        calls: Mapping[str, int],
    ) -> Watched:
        """Return an optimizer's tensors, looking again when its parameters changed.

        Args:
            optimizer_index: Position of the optimizer.
            parameters: All of its parameters.
            calls: For each module name, the rank of its first call.

        Raises:
            ShardedGradientError: Gradients are split over ranks.
            GradGuardError: The parameters are on several devices.
        """
        # Frozen ones are left out here, too, so that one that thaws is noticed.
        ids = [id(parameter) for parameter in parameters if parameter.requires_grad]
        watched = self._watched.get(optimizer_index)
        if watched is not None and watched.ids == ids and not self.scope.is_outdated:
            return watched
        known = {id(tensor.parameter) for tensor in self.scope.tensors}
        if self.scope.is_outdated or not known.issuperset(ids):
            self.scope = self._scan(False)  # noqa: FBT003 - the one place
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        tensors = self.scope.in_depth_order(trained, calls)
        refuse_unsupported(tensors)
        owned = self.scope.owned
        strangers = tuple(p for p in trained if id(p) not in owned)
        received = watched.received if watched else set()
        self._watched[optimizer_index] = Watched(ids, tensors, self._exact, strangers, received)
        return self._watched[optimizer_index]

    def release(self) -> None:
        """Let go of the parameters."""
        self._watched.clear()

    @property
    def never_received(self) -> tuple[str, ...]:
        """Names of parameters that an optimizer has but that never had a gradient."""
        return tuple(
            tensor.name
            for watched in self._watched.values()
            for tensor in watched.tensors
            if tensor.name not in watched.received
        )


def _rows(tensors: Sequence[WatchedTensor]) -> dict[str, str]:
    """Return, for each module, the row that stands for it.

    Where parameters have rows of their own, that of its recurrent matrix, or of its first one.
    """
    rows: dict[str, str] = {}
    for tensor in tensors:
        module = owner(tensor.name)
        is_recurrent = "weight_hh" in tensor.name
        if module not in rows or (is_recurrent and "weight_hh" not in rows[module]):
            rows[module] = tensor.layer
    return rows
