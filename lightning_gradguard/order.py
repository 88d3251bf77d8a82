"""The order in which modules are first called, which is the depth of their layers.

In: a model about to run its first training step. Out: for each module name, the rank of its
first call. The hooks look at nothing else and are removed as soon as the order is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from lightning_gradguard.scope import ROOT, clean_name

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["CallOrder", "is_compiled", "is_ordinary_training", "reachable"]


class CallOrder:
    """Watch which modules are called first, until told to stop.

    Registration order is not execution order in most real models. Inside a compiled module
    no hook is placed: it would force a recompilation, and the layers there take the place of
    the compiled module, in registration order.

    Args:
        model: The module to watch.

    Attributes:
        calls: For each module name, the rank of its first call.
        counts: For each module name, how often it was called.
        compiled: Names of the compiled modules that were left alone.

    Example:
        >>> import torch
        >>> model = nn.ModuleDict({"last": nn.Linear(1, 1), "first": nn.Linear(1, 1)})
        >>> order = CallOrder(model)
        >>> _ = model["last"](model["first"](torch.ones(1)))
        >>> _ = order.remove()
        >>> order.calls
        {'first': 0, 'last': 1}
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.compiled: list[str] = []
        self._handles: list[RemovableHandle] = []
        for name, module in reachable(model):
            clean = clean_name(name) or ROOT
            if is_compiled(module):
                self.compiled.append(clean)
            # A wrapper is called outside what it compiles; other compiled modules take no hook.
            if not is_compiled(module) or hasattr(module, "_orig_mod"):
                hook = self._recorder(clean)
                self._handles.append(module.register_forward_pre_hook(hook))

    def _recorder(self, name: str) -> Callable[[nn.Module, object], None]:
        def record(module: nn.Module, _arguments: object) -> None:
            if module.training:
                self.calls.setdefault(name, len(self.calls))
                self.counts[name] = self.counts.get(name, 0) + 1

        return record

    def remove(self) -> bool:
        """Take every hook away, and say whether there was any."""
        was_watching = bool(self._handles)
        while self._handles:
            self._handles.pop().remove()
        return was_watching


def reachable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules by name, without what is inside of compiled ones."""
    inside: list[str] = []
    for name, module in model.named_modules():
        if any(not outer or name.startswith(f"{outer}.") for outer in inside):
            continue
        if is_compiled(module):
            inside.append(name)
        yield name, module


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile``, ``module.compile()`` or TorchScript was applied to this module."""
    if isinstance(module, torch.jit.ScriptModule):
        return True
    marks = ("_orig_mod", "_compiled_call_impl", "_compiler_ctx")
    return any(getattr(module, mark, None) is not None for mark in marks)


def is_ordinary_training(module: nn.Module) -> bool:
    """Whether a call of this module may be watched: it trains, and autograd alone records it.

    Inside of `torch.func`'s transforms tensors take no hooks, and to try raises.
    """
    if not (module.training and torch.is_grad_enabled()):
        return False
    return torch._C._functorch.peek_interpreter_stack() is None  # noqa: SLF001 - no public way
