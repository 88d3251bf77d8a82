"""The gradients of one optimizer, as remedies see them.

In: an optimizer's parameters and, where it is known already, how large their gradients are. Out:
exact norms on the device. Nothing is written, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from lightning_gradguard import devices
from lightning_gradguard.measure import backend_for, plain_values

__all__ = ["Gradients", "Known", "Member", "Roster", "measure_squares", "weight_unit_norms"]

_MOST_TABLES: Final = 64
"""Sets of indices that are kept, for models in which now these and now those parts are used."""


@dataclass(frozen=True, eq=False)
class Member:
    """A parameter of an optimizer.

    Attributes:
        parameter: The parameter.
        name: Its name in the model.
        layer: Name of the module that owns it.
        group: Position of its parameter group.
        unit_dim: Dimension along which its output units lie.
        is_head: Whether it belongs to the last layer, which makes the output.
    """

    parameter: nn.Parameter
    name: str
    layer: str
    group: int = 0
    unit_dim: int = 0
    is_head: bool = False

    @property
    def num_units(self) -> int:
        """Its output units; a vector is one."""
        return self.parameter.shape[self.unit_dim] if self.parameter.dim() > 1 else 1


@dataclass(frozen=True, eq=False)
class Roster:
    """All parameters of an optimizer, in the order of its groups.

    Attributes:
        members: One per parameter.
        num_groups: Parameter groups of the optimizer, empty ones too.
        notes: What others have found out about this roster and need at every step.
    """

    members: tuple[Member, ...]
    num_groups: int = 1
    notes: dict[str, object] = field(default_factory=dict)

    @cached_property
    def device(self) -> torch.device:
        """Where the first of them is; norms are judged there."""
        return self.members[0].parameter.device

    @cached_property
    def _tables(self) -> dict[tuple[int, ...], Tensor]:
        return {}

    def index(self, numbers: Sequence[int]) -> Tensor:
        """Return indices as a tensor on the device, copied there only once.

        Example:
            >>> Roster((Member(nn.Parameter(torch.zeros(1)), "w", "layer"),)).index([0]).tolist()
            [0]
        """
        key = tuple(numbers)
        if key not in self._tables:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            self._tables[key] = torch.tensor(key, device=self.device, dtype=torch.long)
        return self._tables[key]


class Known(NamedTuple):
    """What was measured already.

    Attributes:
        parameters: Whose gradients.
        squares: Sum of squares of each, ``(parameters,)``, without any gradient scale.
    """

    parameters: Sequence[nn.Parameter]
    squares: Tensor


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradients of one optimizer at one step, complete and not clipped yet.

    Attributes:
        roster: Whose gradients these are.
        tensors: One per member, None where there is none.
        squares: Sum of squares of each, ``(members,)``, without any gradient scale; NaN where
            there is none.
        scale: What a gradient scaler left in the gradients, shape ``()``; None for nothing.
    """

    roster: Roster
    tensors: Sequence[Tensor | None]
    squares: Tensor
    scale: Tensor | None = None

    @classmethod
    def of(
        cls,
        roster: Roster,
        *,
        known: Known | None = None,
        scale: Tensor | None = None,
    ) -> Gradients:
        """Look at gradients as they are now.

        Args:
            roster: Whose.
            known: What was measured already.
            scale: What a gradient scaler left in the gradients.

        Example:
            >>> weight = nn.Parameter(torch.zeros(2))
            >>> weight.grad = torch.tensor([3.0, 4.0])
            >>> Gradients.of(Roster((Member(weight, "weight", "layer"),))).norm.item()
            5.0
        """
        tensors = [member.parameter.grad for member in roster.members]
        squares = _look_up(roster, tensors, known)
        if squares is None:
            squares = _measure(roster, tensors)
            if scale is not None:
                squares = squares / scale.to(squares.dtype).square()
        return cls(roster, tensors, squares, scale)

    @cached_property
    def present(self) -> list[int]:
        """Members that have a gradient, by position."""
        return [i for i, tensor in enumerate(self.tensors) if tensor is not None]

    @cached_property
    def norm(self) -> Tensor:
        """L2 norm of all gradients as one vector, shape ``()``; NaN or infinite if any entry is."""
        if not self.present:
            return self.squares.new_zeros(())
        chosen = self.squares
        if len(self.present) < len(self.tensors):
            chosen = chosen[self.roster.index(self.present)]
        return chosen.sum().sqrt()

    def unit_norms(self, member: int) -> Tensor:
        """Return the gradient norm of each output unit of a member, ``(units,)``."""
        return _unit_norms(self._plain(member), self.roster.members[member], self.scale)

    def _plain(self, member: int) -> Tensor:
        tensor = self.tensors[member]
        assert tensor is not None  # noqa: S101 - asked for members that are present
        return tensor


def weight_unit_norms(member: Member) -> Tensor:
    """Return the norm of each output unit's weights, ``(units,)``."""
    return _unit_norms(member.parameter.detach(), member, None)


def _unit_norms(tensor: Tensor, member: Member, scale: Tensor | None) -> Tensor:
    values = tensor.detach()
    if values.layout is not torch.strided:
        values = values.to_dense()
    if values.is_complex():
        values = values.abs()
    rows = values.movedim(member.unit_dim, 0) if values.dim() > 1 else values.reshape(1, -1)
    dtype = devices.widest_dtype(values.device)
    norms: Tensor = torch.linalg.vector_norm(rows.flatten(1), dim=1, dtype=dtype)
    return norms if scale is None else norms / scale.to(norms.dtype)


def measure_squares(tensors: Sequence[Tensor]) -> Tensor:
    """Return the exact sum of squares of each tensor, which neither vanishes nor overflows.

    Args:
        tensors: Gradients on one device, of any layout and dtype.

    Shape:
        ``(tensors,)``, in the widest dtype of the device.
    """
    values = [plain_values(tensor) for tensor in tensors]
    squares: Tensor = torch.as_tensor(backend_for(values[0].device).large_squares(values))
    return squares


def _measure(roster: Roster, tensors: Sequence[Tensor | None]) -> Tensor:
    found = [tensor for tensor in tensors if tensor is not None]
    if not found:
        dtype = devices.widest_dtype(roster.device)
        return torch.full((len(tensors),), torch.nan, dtype=dtype, device=roster.device)
    squares = measure_squares(found)
    return squares if len(found) == len(tensors) else _spread(roster, tensors, squares)


def _look_up(
    roster: Roster, tensors: Sequence[Tensor | None], known: Known | None
) -> Tensor | None:
    """Take the numbers that are known; None where those of a gradient are missing."""
    if known is None:
        return None
    place = {id(parameter): i for i, parameter in enumerate(known.parameters)}
    found = [
        place.get(id(member.parameter), -1)
        for member, tensor in zip(roster.members, tensors, strict=True)
        if tensor is not None
    ]
    if not found or min(found) < 0:
        return None
    squares = known.squares[roster.index(found)]
    return squares if len(found) == len(tensors) else _spread(roster, tensors, squares)


def _spread(roster: Roster, tensors: Sequence[Tensor | None], squares: Tensor) -> Tensor:
    """Put the numbers of present gradients in their places among NaN."""
    places = [i for i, tensor in enumerate(tensors) if tensor is not None]
    return squares.new_full((len(tensors),), torch.nan).index_copy(0, roster.index(places), squares)
