"""Which gradients are judged together: all, those of a group, a layer or an output unit.

In: gradients. Out: one norm for each segment, and from one factor for each what to multiply the
gradients by. Tensors stay on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from lightning_gradguard.remedies.base import Scale, ScaleUnits
from lightning_gradguard.remedies.gradients import Gradients, Member, Roster

__all__ = ["PER", "Per", "scale_by", "segment_names", "segment_norms"]

Per = Literal["model", "group", "layer", "unit"]
"""What one norm is taken of: all that the optimizer trains, or parts of it."""

PER: Final[tuple[str, ...]] = get_args(Per)


@dataclass(frozen=True)
class _Layout:
    """The segments of a roster.

    Attributes:
        names: What tells them apart.
        rows: For each member, the position of its segment.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]


def _layout(roster: Roster, per: Per) -> _Layout:
    """Return the segments, found once for a roster."""
    known = roster.notes.get(per)
    if isinstance(known, _Layout):
        return known
    if per == "unit":
        names = tuple(f"{m.name}[{i}]" for m in roster.members for i in range(m.num_units))
        layout = _Layout(names, ())
    else:
        keys = [_key(member, per) for member in roster.members]
        place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        layout = _Layout(tuple(place), tuple(place[key] for key in keys))
    roster.notes[per] = layout
    return layout


def segment_names(roster: Roster, per: Per) -> tuple[str, ...]:
    """Return what tells the segments apart, in the order of `segment_norms`.

    Example:
        >>> from torch import nn
        >>> from lightning_gradguard.remedies.gradients import Member
        >>> weight = nn.Parameter(torch.zeros(2, 3))
        >>> segment_names(Roster((Member(weight, "0.weight", "0"),)), "unit")
        ('0.weight[0]', '0.weight[1]')
    """
    return _layout(roster, per).names


def segment_norms(gradients: Gradients, per: Per) -> Tensor:
    """Return the gradient norm of each segment, ``(segments,)``; NaN where there is none."""
    if per == "model":
        norm = gradients.norm
        return (norm if gradients.present else torch.full_like(norm, torch.nan)).reshape(1)
    if per == "unit":
        return _unit_norms(gradients)
    roster, here, squares = gradients.roster, gradients.present, gradients.squares
    layout = _layout(roster, per)
    if len(here) < len(layout.rows):
        squares = squares[roster.index(here)]
    rows = [layout.rows[i] for i in here]
    sums = squares.new_zeros(len(layout.names)).index_add(0, roster.index(rows), squares).sqrt()
    missing = sorted(set(range(len(layout.names))) - set(rows))
    return sums.index_fill(0, roster.index(missing), torch.nan) if missing else sums


def scale_by(
    gradients: Gradients, per: Per, factors: Tensor, name: str, norms: Tensor
) -> Scale | ScaleUnits:
    """Say what to multiply gradients by.

    Args:
        gradients: As given to `segment_norms`.
        per: As given there.
        factors: One per segment, in ``[0, 1]``.
        name: What asks for it.
        norms: As returned there.
    """
    if per == "model":
        return Scale(factors.reshape(()), name)
    roster = gradients.roster
    if per == "unit":
        sizes = [member.num_units for member in roster.members]
        parts, measured = torch.split(factors, sizes), torch.split(norms, sizes)
        here = gradients.present
        return ScaleUnits({i: parts[i] for i in here}, name, {i: measured[i] for i in here})
    return Scale(factors[roster.index(_layout(roster, per).rows)], name)


def _key(member: Member, per: Per) -> str:
    if per == "model":
        return "model"
    return f"group {member.group}" if per == "group" else member.layer


def _unit_norms(gradients: Gradients) -> Tensor:
    here = set(gradients.present)
    return torch.cat(
        [
            gradients.unit_norms(i)
            if i in here
            else gradients.squares.new_full((member.num_units,), torch.nan)
            for i, member in enumerate(gradients.roster.members)
        ]
    )
