"""What is to be known of single layers before they are judged.

In: a model after its first step. Out: for each layer, sentences on what is special about it: why
it is left out, or which of its numbers mean nothing. Names and module types only.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from torch import nn

from lightning_gradguard.roles import LEFT_OUT
from lightning_gradguard.scope import ROOT, clean_name, role_of

__all__ = ["layer_notes"]


def layer_notes(model: nn.Module, calls: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Describe every layer that owns parameters; those with nothing special have no note.

    Args:
        model: Any module.
        calls: For each module name, the rank of its first call.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        >>> layer_notes(model, {"0": 0, "1": 1})["0"]
        ('its bias comes right before the norm layer 1, which takes constants away: ...',)
    """
    owners: dict[int, str] = {}
    notes = {}
    following = _following(model, calls)
    for name, module in model.named_modules():
        layer = clean_name(name) or ROOT
        own = dict(module.named_parameters(recurse=False))
        if own:
            notes[layer] = (*_role(module), *_tied(own, layer, owners), *_frozen(own))
            notes[layer] += _before_norm(own, following.get(layer))
    return notes


def _role(module: nn.Module) -> tuple[str, ...]:
    reason = LEFT_OUT.get(role_of(module))
    return () if reason is None else (f"left out where depth is judged: {reason}",)


def _tied(own: Mapping[str, nn.Parameter], layer: str, owners: dict[int, str]) -> tuple[str, ...]:
    tied = [owners[id(p)] for p in own.values() if id(p) in owners]
    for parameter in own.values():
        owners.setdefault(id(parameter), layer)
    return tuple(f"tied: a parameter of {other}, where it is counted" for other in tied)


def _frozen(own: Mapping[str, nn.Parameter]) -> tuple[str, ...]:
    frozen = [name for name, parameter in own.items() if not parameter.requires_grad]
    if not frozen:
        return ()
    if len(frozen) == len(own):
        return ("frozen: none of its parameters asks for a gradient, so it is not watched",)
    return (f"partly frozen: {', '.join(frozen)}",)


def _before_norm(own: Mapping[str, nn.Parameter], norm: str | None) -> tuple[str, ...]:
    if norm is None or "bias" not in own:
        return ()
    note = (
        f"its bias comes right before the norm layer {norm}, which takes constants away: that "
        "bias has next to no gradient in the healthiest of models, and is not judged"
    )
    return (note,)


def _following(model: nn.Module, calls: Mapping[str, int]) -> dict[str, str]:
    """Return, for each leaf module, the norm layer that was called right after it, if any."""
    leaves = {
        clean_name(name) or ROOT: module
        for name, module in model.named_modules()
        if next(module.children(), None) is None
    }
    order = sorted((rank, name) for name, rank in calls.items() if name in leaves)
    return {
        before: after
        for (_, before), (_, after) in pairwise(order)
        if role_of(leaves[after]) == "norm"
    }
