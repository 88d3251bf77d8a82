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

__all__ = ["ROOT", "GroupBy", "Scope", "WatchedTensor", "clean_name", "owner", "unwrap"]

GroupBy = Literal["module", "parameter"]

ROOT: Final = "(root)"
"""Layer name of parameters that the outermost module owns itself."""

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
    """

    name: str
    layer: str
    parameter: nn.Parameter
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Scope:
    """The watched parameters of a model.

    Attributes:
        tensors: What is watched, in registration order.
        lazy: Parameters that had no shape yet, by name; scan again once one does.
        places: For each module, its rank in registration order.
    """

    tensors: tuple[WatchedTensor, ...]
    lazy: Mapping[str, nn.Parameter] = field(default_factory=dict)
    places: Mapping[str, int] = field(default_factory=dict)

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
        found = [
            WatchedTensor(n[0], n[0] if group_by == "parameter" else owner(n[0]), p, tuple(n[1:]))
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
        return cls(tuple(kept), lazy, _places(model))

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
