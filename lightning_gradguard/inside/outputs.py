"""Gradients with respect to what layers put out, in the steps of a training.

In: a model. Out: for each layer with a weight matrix, a sum of squares on the device. It is the
signal itself on its way back, which no shape of a parameter blurs.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightning_gradguard.devices import widest_dtype
from lightning_gradguard.inside.safely import Failures
from lightning_gradguard.order import is_compiled, is_ordinary_training, reachable
from lightning_gradguard.scope import ROOT, clean_name, is_matrix

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["Outputs"]


class Outputs:
    """Watch the gradients of layers' outputs while armed.

    Args:
        model: Looked through each time for layers with weight matrices: lazy ones get them late.
        failures: Told of what goes wrong in a hook.

    Cost:
        Nothing while not armed. On an armed step one reduction per call of a layer.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> outputs = Outputs(model)
        >>> outputs.arm()
        >>> (3.0 * model(torch.ones(1, 2))).sum().backward()
        >>> outputs.take()["1"].item()
        18.0
    """

    def __init__(self, model: nn.Module, failures: Failures | None = None) -> None:
        self._model, self._failures = model, failures or Failures()
        self._squares: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def arm(self) -> None:
        """Watch from the next forward pass on."""
        self.forget()
        for name, layer in reachable(self._model):
            if not is_compiled(layer) and any(
                map(_is_known_matrix, layer.parameters(recurse=False))
            ):
                hook = self._watcher(clean_name(name) or ROOT)
                self._handles.append(layer.register_forward_hook(hook))

    def disarm(self) -> None:
        """Remove every hook of a module; gradients still to come are noted."""
        while self._handles:
            self._handles.pop().remove()

    def forget(self) -> None:
        """Disarm, and let go of what has been seen."""
        self.disarm()
        self._squares = {}

    def take(self, modules: Container[str] | None = None) -> dict[str, Tensor]:
        """Return the sums of squares seen since armed, each ``()``, and disarm.

        Those of a layer that is called several times add up.

        Args:
            modules: Names of the layers to take, usually those of one optimizer; None means all.
        """
        self.disarm()
        names = [name for name in self._squares if modules is None or name in modules]
        return {name: self._squares.pop(name) for name in names}

    def _watcher(self, name: str) -> Callable[..., None]:
        squares = self._squares

        def note(gradient: Tensor) -> None:
            # Widened first: what vanishes reaches 1e-30, and its square must survive.
            real = torch.view_as_real(gradient) if gradient.is_complex() else gradient
            found = real.detach().to(widest_dtype(gradient.device)).square().sum()
            squares[name] = squares[name] + found if name in squares else found

        def watch(layer: nn.Module, _arguments: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor) and first.requires_grad and is_ordinary_training(layer):
                first.register_hook(self._failures.caught(note))  # type: ignore[no-untyped-call]  # torch's own gap

        return self._failures.caught(watch)


def _is_known_matrix(parameter: nn.Parameter) -> bool:
    return not isinstance(parameter, UninitializedParameter) and is_matrix(parameter)
