"""What activation functions put out, in the steps of a training.

In: a model. Out: for each call of an activation function, be it a module or a function, a few
numbers on the device, and which module called it. Outputs are reduced where they come up and never
kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_gradguard.inside.functions import NAMES, look_at
from lightning_gradguard.inside.safely import Failures
from lightning_gradguard.order import is_compiled, is_ordinary_training, reachable
from lightning_gradguard.scope import ROOT, clean_name, is_matrix

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["Activations", "Site"]

_MOST_SITES: Final = 256
_MOST_CALLS: Final = 4
"""Calls of one function in one module that are looked at: more is a loop."""
_CHANNELS_FIRST: Final = (
    nn.modules.conv._ConvNd,  # noqa: SLF001 - there is no public base
    nn.modules.batchnorm._BatchNorm,  # noqa: SLF001 - there is no public base
    nn.GroupNorm,
)


class Site(NamedTuple):
    """Where an activation function was called.

    Attributes:
        function: Its name.
        module: The module that called it, or is it.
        call: Which of its calls there, from 0.
        layer: The last layer with a weight matrix before it.
    """

    function: str
    module: str
    call: int
    layer: str


class Activations:
    """Watch activation functions from `arm` to `disarm`: one forward pass.

    Args:
        model: Looked through once for its modules.
        failures: Told of what goes wrong in looking.

    Cost:
        Nothing while not armed. On an armed step about a quarter of a forward and backward pass.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> activations = Activations(model)
        >>> activations.arm()
        >>> _ = model(torch.ones(4, 2))
        >>> [(site.function, site.layer) for site in activations.take()]
        [('relu', '0')]
    """

    def __init__(self, model: nn.Module, failures: Failures | None = None) -> None:
        failures = failures or Failures()
        self._modules = {
            clean_name(name) or ROOT: module
            for name, module in reachable(model)
            if not is_compiled(module)
        }
        self._found: dict[Site, dict[str, Tensor]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._within: list[str] = []
        self._before: str = ""
        self._is_channels_first = False
        self._listener = _Listener(failures.caught(self._note))
        self._handles: list[RemovableHandle] = []

    def arm(self) -> None:
        """Watch from the next forward pass on."""
        self.forget()
        for name, module in self._modules.items():
            self._handles += [
                module.register_forward_pre_hook(self._enter(name)),
                module.register_forward_hook(self._leave(name), always_call=True),
            ]

    def disarm(self) -> None:
        """Remove every hook; harmless when there is none."""
        while self._handles:
            self._handles.pop().remove()

    def forget(self) -> None:
        """Disarm, and let go of what has been seen."""
        self.disarm()
        self._found.clear()
        self._counts.clear()
        self._within.clear()
        self._before = ""

    def take(self, modules: Container[str] | None = None) -> Mapping[Site, Mapping[str, Tensor]]:
        """Return what was seen since armed, see `functions.look_at`, and disarm.

        Args:
            modules: Names of the layers whose units are meant, usually those of one optimizer; None
                means all.
        """
        self.disarm()
        sites = [site for site in self._found if modules is None or site.layer in modules]
        return {site: self._found.pop(site) for site in sites}

    def _enter(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, _arguments: object) -> None:
            if not self._within:
                if not is_ordinary_training(module):
                    return
                self._listener.__enter__()  # type: ignore[no-untyped-call]  # torch's own gap
            self._within.append(name)

        return enter

    def _leave(self, name: str) -> Callable[..., None]:
        def leave(module: nn.Module, _arguments: object, _output: object) -> None:
            if not self._within:
                return
            self._within.pop()
            if not self._within:
                self._listener.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # as above
            if any(is_matrix(parameter) for parameter in module.parameters(recurse=False)):
                self._before = name
            if next(module.children(), None) is None and not _is_elementwise(module):
                self._is_channels_first = isinstance(module, _CHANNELS_FIRST)

        return leave

    def _note(self, function: str, output: Tensor) -> None:
        """Look at what an activation function returned."""
        if not output.is_floating_point() or output.dim() == 0 or output.numel() == 0:
            return
        module = self._within[-1]
        call = self._counts[module, function]
        self._counts[module, function] += 1
        if call < _MOST_CALLS and len(self._found) < _MOST_SITES:
            first = self._is_channels_first and output.dim() > 2 and function != "softmax"
            with torch.no_grad():
                numbers = look_at(function, output, 1 if first else output.dim() - 1)
            self._found[Site(function, module, call, self._before or module)] = numbers


class _Listener(TorchFunctionMode):
    """Hears of every function of torch that is called, and lets it do what it does."""

    def __init__(self, note: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self._told = note

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch returns
        output = func(*args, **(kwargs or {}))
        name = NAMES.get(func)
        if name == "hardtanh":
            name = _hardtanh(*args[1:3], **(kwargs or {}))
        if name is not None and type(output) is Tensor:
            self._told(name, output)
        return output


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, **_: object) -> str | None:
    """Return what it is with these ends: `torch.nn.ReLU6` is one, too."""
    return {(-1.0, 1.0): "hardtanh", (0.0, 6.0): "relu6"}.get((min_val, max_val))


def _is_elementwise(module: nn.Module) -> bool:
    """Whether a module changes no shape: activations, dropout."""
    return module.__class__.__module__ in {
        "torch.nn.modules.activation",
        "torch.nn.modules.dropout",
    }
