"""Who an optimizer's parameters are.

In: a model, one of its optimizers, and which module was called when. Out: a `Roster`, with the
names that people know.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from lightning_gradguard.remedies.gradients import Member, Roster
from lightning_gradguard.scope import ELSEWHERE, Scope, WatchedTensor, is_matrix

__all__ = ["roster_of"]


def roster_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, calls: Mapping[str, int]
) -> Roster:
    """Name the parameters of an optimizer.

    Args:
        model: The model that is trained.
        optimizer: Its parameters are named, in the order of its groups.
        calls: For each module name, the rank of its first call; empty while nobody knows, and
            then the last registered layer is taken for the one that makes the output.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False))
        >>> roster = roster_of(model, torch.optim.SGD(model.parameters(), lr=0.1), {})
        >>> [(member.name, member.is_head) for member in roster.members]
        [('0.weight', False), ('0.bias', False), ('1.weight', True)]
    """
    scope = Scope.of(model, check=False)
    in_order = scope.in_depth_order([tensor.parameter for tensor in scope.tensors], calls)
    matrices = [tensor.layer for tensor in in_order if is_matrix(tensor.parameter)]
    head = matrices[-1] if len(set(matrices)) > 1 else None
    known = {id(tensor.parameter): tensor for tensor in scope.tensors}
    return Roster(
        tuple(
            _member(parameter, group, known.get(id(parameter)), head)
            for group, settings in enumerate(optimizer.param_groups)
            for parameter in settings["params"]
        ),
        num_groups=len(optimizer.param_groups),
    )


def _member(
    parameter: nn.Parameter, group: int, known: WatchedTensor | None, head: str | None
) -> Member:
    if known is None:
        return Member(parameter, ELSEWHERE, ELSEWHERE, group)
    unit_dim = known.unit_dim or 0
    return Member(parameter, known.name, known.layer, group, unit_dim, known.layer == head)
