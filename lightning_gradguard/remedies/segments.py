"""Which gradients are judged together: all, those of a group, a layer or an output unit.

In: gradients. Out: one norm for each segment, and from one factor for each what to multiply the
gradients by. Tensors stay on the device.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import torch
from torch import Tensor

from lightning_gradguard.remedies.base import Scale, ScaleUnits
from lightning_gradguard.remedies.gradients import Gradients, Member, Roster

__all__ = ["PER", "Per", "clip", "segment_names", "segment_norms"]

Per = Literal["model", "group", "layer", "unit"]
"""What one norm is taken of: all that the optimizer trains, or parts of it."""

PER: Final[tuple[str, ...]] = get_args(Per)


def segment_names(roster: Roster, per: Per) -> tuple[str, ...]:
    """Return what tells the segments apart, in the order of `segment_norms`.

    Example:
        >>> from torch import nn
        >>> from lightning_gradguard.remedies.gradients import Member
        >>> weight = nn.Parameter(torch.zeros(2, 3))
        >>> segment_names(Roster((Member(weight, "0.weight", "0"),)), "unit")
        ('0.weight[0]', '0.weight[1]')
    """
    if per == "unit":
        return tuple(f"{m.name}[{i}]" for m in roster.members for i in range(_num_units(m)))
    keys = [_key(member, per) for member in roster.members]
    return tuple(dict.fromkeys(keys))


def segment_norms(gradients: Gradients, per: Per) -> Tensor:
    """Return the gradient norm of each segment, ``(segments,)``; NaN where there is none."""
    if per == "model":
        norm = gradients.norm
        return (norm if gradients.present else torch.full_like(norm, torch.nan)).reshape(1)
    if per == "unit":
        return _unit_norms(gradients)
    roster = gradients.roster
    names = {name: i for i, name in enumerate(segment_names(roster, per))}
    rows = [names[_key(member, per)] for member in roster.members]
    here = gradients.present
    squares = gradients.squares
    if len(here) < len(rows):
        squares = squares[roster.index(here)]
    index = roster.index([rows[i] for i in here])
    sums = squares.new_zeros(len(names)).index_add(0, index, squares).sqrt()
    missing = sorted(set(range(len(names))) - {rows[i] for i in here})
    if not missing:
        return sums
    return sums.index_fill(0, roster.index(missing), torch.nan)


def clip(gradients: Gradients, per: Per, factors: Tensor, name: str) -> Scale | ScaleUnits:
    """Say what to multiply gradients by.

    Args:
        gradients: As given to `segment_norms`.
        per: As given there.
        factors: One per segment, in ``[0, 1]``.
        name: What asks for it.
    """
    if per == "model":
        return Scale(factors.reshape(()), name)
    roster = gradients.roster
    if per == "unit":
        parts = torch.split(factors, [_num_units(member) for member in roster.members])
        return ScaleUnits({i: parts[i] for i in gradients.present}, name)
    names = {key: i for i, key in enumerate(segment_names(roster, per))}
    rows = [names[_key(member, per)] for member in roster.members]
    return Scale(factors[roster.index(rows)], name)


def _key(member: Member, per: Per) -> str:
    if per == "model":
        return "model"
    return f"group {member.group}" if per == "group" else member.layer


def _num_units(member: Member) -> int:
    parameter = member.parameter
    return parameter.shape[member.unit_dim] if parameter.dim() > 1 else 1


def _unit_norms(gradients: Gradients) -> Tensor:
    here = set(gradients.present)
    return torch.cat(
        [
            gradients.unit_norms(i)
            if i in here
            else gradients.squares.new_full((_num_units(member),), torch.nan)
            for i, member in enumerate(gradients.roster.members)
        ]
    )
