"""Clip gradients in place.

In: decisions on how much. Out: smaller gradients, and by how much their norm shrank. Several
decisions give the same result in any order: entries are clamped first, and of several factors the
smallest holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_gradguard import devices
from lightning_gradguard.remedies.base import Clamp, Decision, Scale, ScaleUnits
from lightning_gradguard.remedies.gradients import Gradients, Member, Roster, measure_squares

__all__ = ["clip_", "smallest_factor"]


@torch.no_grad()
def clip_(gradients: Gradients, decisions: Sequence[Decision], *, dry_run: bool = False) -> Tensor:
    """Do what was decided about gradients.

    Args:
        gradients: Those that the decisions are about.
        decisions: Others than clipping are passed over.
        dry_run: Whether to leave the gradients as they are and only say what would be.

    Returns:
        Norm afterwards over norm before, shape ``()``; NaN where that is not finite.
    """
    clamps = [decision for decision in decisions if isinstance(decision, Clamp)]
    unit_decisions = [decision for decision in decisions if isinstance(decision, ScaleUnits)]
    units = [decision.factors for decision in unit_decisions]
    factor = smallest_factor(decisions, gradients)
    here = gradients.present
    if not here or not (clamps or units or factor is not None):
        return torch.ones_like(gradients.norm)
    known = None if clamps else _norm_after(gradients, factor, unit_decisions)
    if not dry_run or known is None:
        gradients = _copied(gradients) if dry_run else gradients
        for clamp in clamps:
            _clamp_(gradients, clamp)
        if units:
            _scale_units_(gradients, factor, units)
        elif factor is not None:
            _scale_(gradients, factor)
    after = _norm_now(gradients) if known is None else known
    norm = gradients.norm
    ratio = torch.where(norm > 0.0, after / norm, torch.ones_like(norm))
    return torch.where(torch.isfinite(norm), ratio, torch.full_like(ratio, torch.nan))


def smallest_factor(decisions: Sequence[Decision], gradients: Gradients) -> Tensor | None:
    """Return the smallest of all factors, one for all or one per member; None for no factor."""
    factors = [decision.factors for decision in decisions if isinstance(decision, Scale)]
    if not factors:
        return None
    smallest = factors[0].to(gradients.squares)
    for other in factors[1:]:
        smallest = torch.minimum(smallest, other.to(gradients.squares))
    return _harmless(smallest)


def _harmless(factors: Tensor) -> Tensor:
    """Take a factor that is NaN for 1, and none for more."""
    return torch.nan_to_num(factors, nan=1.0).clamp(min=0.0, max=1.0)


def _norm_after(
    gradients: Gradients, factor: Tensor | None, units: Sequence[ScaleUnits]
) -> Tensor | None:
    """Return the norm that scaling leaves, from what is known; None where it must be measured."""
    here = gradients.roster.index(gradients.present)
    one = torch.ones((), dtype=gradients.squares.dtype, device=gradients.squares.device)
    factor = one if factor is None else factor
    squares = gradients.squares * factor.square()
    if not units:
        return squares[here].sum().sqrt()
    norms = units[0].norms
    if len(units) > 1 or norms is None:
        return None
    members = list(units[0].factors)
    own = factor.expand_as(squares)
    sums = []
    for i in members:
        both = torch.minimum(units[0].factors[i].to(squares), own[i])
        sums.append((both * norms[i]).square().sum())
    return (
        squares.index_copy(0, gradients.roster.index(members), torch.stack(sums))[here].sum().sqrt()
    )


def _writable(member: Member) -> Tensor:
    """Return its gradient, each entry with memory of its own: no two share it, none is in parts.

    Expanded gradients share it, and sparse ones may hold an entry in several parts. To add those
    up rounds otherwise than the optimizer would, so ask only for what is going to change.
    """
    tensor = member.parameter.grad
    assert tensor is not None  # noqa: S101 - asked for members that are present
    if _is_in_parts(tensor):
        tensor = tensor.coalesce()
    elif tensor.layout is torch.strided and 0 in tensor.stride() and tensor.numel() > 1:
        tensor = tensor.clone()
    member.parameter.grad = tensor
    return tensor


def _is_in_parts(tensor: Tensor | None) -> bool:
    """Whether it is sparse and its entries are not added up; that would wait for the device."""
    return tensor is not None and tensor.layout is torch.sparse_coo and not tensor.is_coalesced()


def _copied(gradients: Gradients) -> Gradients:
    """Return copies of gradients that may be written to."""
    members = []
    for member in gradients.roster.members:
        parameter = nn.Parameter(member.parameter.detach())
        if member.parameter.grad is not None:
            parameter.grad = member.parameter.grad.clone()
        members.append(replace(member, parameter=parameter))
    tensors = [member.parameter.grad for member in members]
    return Gradients(Roster(tuple(members)), tensors, gradients.squares, gradients.scale)


def _scale_(gradients: Gradients, factor: Tensor) -> None:
    members = [gradients.roster.members[i] for i in gradients.present]
    if devices.is_host(factor.device) and bool((factor == 1.0).all()):
        return  # known for free, and most steps are such
    tensors = [tensor for tensor in gradients.tensors if tensor is not None]
    if factor.dim() == 0 and all(tensor.layout is torch.strided for tensor in tensors):
        torch._foreach_mul_([_writable(member) for member in members], factor)
        return
    own = factor.expand(len(gradients.tensors))[gradients.roster.index(gradients.present)]
    for member, single in zip(members, own.unbind(), strict=True):
        _scale_one_(member, single)


def _scale_one_(member: Member, factor: Tensor) -> None:
    on_host = devices.is_host(factor.device)
    if (on_host or _is_in_parts(member.parameter.grad)) and float(factor) == 1.0:
        return
    _writable(member).mul_(float(factor) if on_host else factor)


def _scale_units_(
    gradients: Gradients, factor: Tensor | None, units: Sequence[Mapping[int, Tensor]]
) -> None:
    """Multiply rows, and whole tensors where nothing was said of their rows."""
    for i in gradients.present:
        own = None if factor is None else (factor if factor.dim() == 0 else factor[i])
        rows = [table[i] for table in units if i in table]
        member = gradients.roster.members[i]
        if not rows:
            if own is not None:
                _scale_one_(member, own)
            continue
        smallest = rows[0]
        for other in [*rows[1:], *([] if own is None else [own.expand_as(rows[0])])]:
            smallest = torch.minimum(smallest, other.to(smallest))
        smallest = _harmless(smallest)
        may_ask = devices.is_host(smallest.device) or _is_in_parts(member.parameter.grad)
        if not may_ask or bool((smallest < 1.0).any()):
            _scale_rows_(member, _writable(member), smallest)


def _scale_rows_(member: Member, tensor: Tensor, factors: Tensor) -> None:
    """Multiply each unit by its factor; a vector is one unit."""
    if tensor.dim() <= 1:
        tensor.mul_(factors.reshape(()))
        return
    if tensor.layout is not torch.strided:
        rows = tensor.indices()[member.unit_dim]
        values = tensor.values()
        values.mul_(factors.to(values.dtype)[rows].view([-1] + [1] * (values.dim() - 1)))
        return
    shape = [1] * tensor.dim()
    shape[member.unit_dim] = -1
    # Not in 16 bits, where a small factor would be rounded to zero.
    real = torch.promote_types(tensor.real.dtype, torch.float32)
    tensor.copy_(tensor * factors.to(real).view(shape))


def _clamp_(gradients: Gradients, clamp: Clamp) -> None:
    members = gradients.present if clamp.members is None else clamp.members
    for i in members:
        member = gradients.roster.members[i]
        gradient = member.parameter.grad
        if gradient is None:
            continue
        limit = clamp.limit if gradients.scale is None else gradients.scale * clamp.limit
        if _is_in_parts(gradient) and bool((_reals(gradient.coalesce()).abs() <= limit).all()):
            continue
        _limit_(_reals(_writable(member)), limit)


def _reals(tensor: Tensor) -> Tensor:
    """Return all stored entries as real numbers, in the tensor's own memory."""
    entries = tensor if tensor.layout is torch.strided else tensor.values()
    return torch.view_as_real(entries) if entries.is_complex() else entries


def _limit_(entries: Tensor, limit: Tensor | float) -> None:
    if isinstance(limit, Tensor):
        limit = limit.to(entries.dtype)
        entries.clamp_(-limit, limit)
    else:
        entries.clamp_(-limit, limit)


def _norm_now(gradients: Gradients) -> Tensor:
    parameters = [gradients.roster.members[i].parameter for i in gradients.present]
    tensors = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = measure_squares(tensors).sum().sqrt()
    return norm if gradients.scale is None else norm / gradients.scale.to(norm.dtype)
