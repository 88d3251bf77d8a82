"""Which parameters are watched, which layer owns each, and in which order layers come.

In: a module. Out: `WatchedTensor` records in depth order. This file reads names and
identities only; it never touches values or gradients.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, Literal

from torch import nn
from torch.nn.parameter import UninitializedParameter

from lightning_gradguard.roles import Role

__all__ = [
    "ELSEWHERE",
    "ROOT",
    "GroupBy",
    "Scope",
    "WatchedTensor",
    "clean_name",
    "is_matrix",
    "owner",
    "role_of",
    "unwrap",
]

GroupBy = Literal["module", "parameter"]

ROOT: Final = "(root)"
"""Layer name of parameters that the outermost module owns itself."""

ELSEWHERE: Final = "(not in the model)"
"""Stands for parameters of an optimizer that the model does not have."""

_PARAMETRIZATION: Final = ".parametrizations."

_WRAPPERS: Final = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?:\.|$)"
)


def clean_name(name: str) -> str:
    """Remove what compilers, checkpointing and sharding put into a name.

    Example:
        >>> clean_name("encoder._orig_mod.0.weight")
        'encoder.0.weight'
    """
    return _WRAPPERS.sub("", name).rstrip(".")


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside data-parallel wrappers, whose names all begin with ``module.``."""
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    return model


@dataclass(frozen=True, eq=False)
class WatchedTensor:
    """One trainable parameter.

    Attributes:
        name: Its name in the model, without wrappers.
        layer: The module that owns it, which is the row it is counted in.
        parameter: The parameter itself.
        aliases: Other names of the same parameter, when weights are tied.
        role: What its module is.
        unit_dim: Dimension along which its module's units lie, such as 0 for the outputs of a
            linear layer; None where a row is no unit.
    """

    name: str
    layer: str
    parameter: nn.Parameter
    aliases: tuple[str, ...] = ()
    role: Role = "weights"
    unit_dim: int | None = None

    @property
    def has_units(self) -> bool:
        """Whether single units can be told apart in its gradient."""
        return self.unit_dim is not None


@dataclass(frozen=True, eq=False)
class Scope:
    """The watched parameters of a model.

    Attributes:
        tensors: What is watched, in registration order.
        lazy: Parameters that had no shape yet, by name; scan again once one does.
        places: For each module, its rank in registration order.
        owned: Identities of all parameters of the model, watched or not.
    """

    tensors: tuple[WatchedTensor, ...]
    lazy: Mapping[str, nn.Parameter] = field(default_factory=dict)
    places: Mapping[str, int] = field(default_factory=dict)
    owned: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        group_by: GroupBy = "module",
        check: bool = True,
    ) -> Scope:
        """Find the trainable parameters of a model.

        Args:
            model: Any module; frozen parameters are left out.
            include: Globs of layers or parameters to watch; empty means all.
            exclude: Globs of layers or parameters to leave out.
            group_by: Whether a row is a ``"module"`` or a single ``"parameter"``.
            check: Whether globs that match nothing are an error; not when a model that is
                already training is looked at again.

        Raises:
            ValueError: A glob matches no parameter, frozen ones included, or nothing is left.

        Example:
            >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
            >>> [tensor.name for tensor in Scope.of(model, exclude=["2"]).tensors]
            ['0.weight', '0.bias']
        """
        names = _names_by_parameter(model)
        lazy = {n[0]: p for p, n in names.items() if isinstance(p, UninitializedParameter)}
        modules = {clean_name(name) or ROOT: module for name, module in model.named_modules()}
        found = [
            _watched(p, n, modules, group_by)
            for p, n in names.items()
            if not isinstance(p, UninitializedParameter)
        ]
        if check and not lazy:
            _check_globs(model, include=include, exclude=exclude)
        kept = [t for t in found if not include or _matches(t, include)]
        kept = [t for t in kept if not _matches(t, exclude)]
        if check and found and not kept:
            msg = (
                f"`include` and `exclude` must leave something to watch, got include={include!r} "
                f"and exclude={exclude!r}, which leave none of {len(found)} parameters."
            )
            raise ValueError(msg)
        owned = frozenset(id(parameter) for parameter in model.parameters())
        return cls(tuple(kept), lazy, _places(model), owned)

    @property
    def is_outdated(self) -> bool:
        """Whether a lazy parameter has got its shape since."""
        return any(not isinstance(p, UninitializedParameter) for p in self.lazy.values())

    def in_depth_order(
        self, wanted: Iterable[nn.Parameter], calls: Mapping[str, int]
    ) -> tuple[WatchedTensor, ...]:
        """Return the watched ones among some parameters, first-called layer first.

        A module that is used without being called takes the place of its nearest enclosing
        module that was, after what is called in there and registered before it; with no calls
        at all, registration order is what remains.

        Args:
            wanted: Parameters, usually those of one optimizer.
            calls: For each module name, the rank of its first call.
        """
        ids = {id(parameter) for parameter in wanted}
        mine = [tensor for tensor in self.tensors if id(tensor.parameter) in ids]
        return tuple(sorted(mine, key=lambda t: self._place(owner(t.name), calls)))

    def _place(self, module: str, calls: Mapping[str, int]) -> tuple[int, int]:
        registered = self.places.get(module, len(self.places))
        name = module
        while name not in calls and name != ROOT:
            name = owner(name)
        if name == module:
            return calls.get(name, -1), registered
        inside = "" if name == ROOT else f"{name}."
        earlier = [
            (place, calls[other])
            for other, place in self.places.items()
            if other in calls and other.startswith(inside) and place < registered
        ]
        return max(earlier, default=(0, calls.get(name, -1)))[1], registered


def _watched(
    parameter: nn.Parameter,
    names: Sequence[str],
    modules: Mapping[str, nn.Module],
    group_by: GroupBy,
) -> WatchedTensor:
    module = modules[owner(names[0])]
    role, layer = role_of(module), owner(names[0])
    if group_by == "parameter":
        layer = names[0]
        if role in {"weights", "recurrent", "gated"} and not is_matrix(parameter):
            role = "vectors"
    aliases, unit_dim = tuple(names[1:]), _unit_dim(module, parameter)
    return WatchedTensor(names[0], layer, parameter, aliases, role, unit_dim)


def role_of(module: nn.Module) -> Role:
    """Recognise what a module is.

    Example:
        >>> role_of(nn.LSTM(1, 1)), role_of(nn.LayerNorm(2)), role_of(nn.Linear(1, 1))
        ('gated', 'norm', 'weights')
    """
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "embedding"
    if isinstance(module, (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)):
        return "gated"
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return "recurrent"
    own = [p for p in _own_parameters(module) if not isinstance(p, UninitializedParameter)]
    if own and not any(is_matrix(parameter) for parameter in own):
        return "norm" if "norm" in type(module).__name__.lower() else "vectors"
    # Attention keeps its projections itself, beside a child that it does not even call.
    children = (c for name, c in module.named_children() if name != "parametrizations")
    holds_others = any(next(child.parameters(), None) is not None for child in children)
    if holds_others and not isinstance(module, nn.MultiheadAttention):
        return "container"
    return "weights"


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return a module's own parameters, also those that its parametrizations keep for it."""
    parametrizations = getattr(module, "parametrizations", None)
    made = parametrizations.parameters() if isinstance(parametrizations, nn.Module) else ()
    return [*module.parameters(recurse=False), *made]


def is_matrix(parameter: nn.Parameter) -> bool:
    """Whether a parameter mixes units: a scale per channel of shape (C, 1, 1) does not."""
    return parameter.dim() == 2 or sum(size > 1 for size in parameter.shape) >= 2


def _unit_dim(module: nn.Module, parameter: nn.Parameter) -> int | None:
    # By name, not by attribute: a parametrized weight is computed, perhaps of random numbers.
    if dict(module.named_parameters(recurse=False)).get("weight") is not parameter:
        return None
    if isinstance(module, nn.modules.conv._ConvTransposeNd):  # noqa: SLF001 - the one base class there is
        return 1 if module.groups == 1 else None
    return 0 if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) else None  # noqa: SLF001 - as above


def _names_by_parameter(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Map each trainable parameter to all its names, the first registered first."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            names.setdefault(parameter, []).append(clean_name(name))
    return names


def _places(model: nn.Module) -> dict[str, int]:
    places: dict[str, int] = {}
    for name, _ in model.named_modules():
        places.setdefault(clean_name(name) or ROOT, len(places))
    return places


def owner(name: str) -> str:
    """Return the enclosing module's name; a parametrization belongs to what it parametrizes.

    Example:
        >>> owner("encoder.0.weight"), owner("net.parametrizations.weight.original0")
        ('encoder.0', 'net')
    """
    if _PARAMETRIZATION in f".{name}":
        return f".{name}".partition(_PARAMETRIZATION)[0].removeprefix(".") or ROOT
    return name.rpartition(".")[0] or ROOT


def _matches(tensor: WatchedTensor, globs: Sequence[str]) -> bool:
    names = (tensor.layer, tensor.name, *tensor.aliases)
    return any(fnmatchcase(name, glob) for name in names for glob in globs)


def _check_globs(model: nn.Module, **globs_by_argument: Sequence[str]) -> None:
    names = [clean_name(name) for name, _ in model.named_parameters(remove_duplicate=False)]
    for argument, globs in globs_by_argument.items():
        for glob in globs:
            if any(fnmatchcase(n, glob) or fnmatchcase(owner(n), glob) for n in names):
                continue
            known = [clean_name(name) for name, _ in model.named_parameters()]
            first = ", ".join(map(repr, known[:3])) + (", …" if len(known) > 3 else "")
            msg = (
                f"No parameter matches {argument}={glob!r}. "
                f"The model's first parameters are {first}"
            )
            raise ValueError(msg)
