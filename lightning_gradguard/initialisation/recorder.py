"""What each layer puts out, and the gradient with respect to that, in one pass.

In: a model's layers, a forward pass, then a loss. Out: one `LayerSignal` per layer, in the order of
first calls. Only looks: outputs and gradients go on as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from lightning_gradguard.initialisation.layers import Layers
from lightning_gradguard.initialisation.signal import LayerSignal
from lightning_gradguard.scope import ROOT, clean_name

__all__ = ["Recorder", "floating", "root_mean_square", "spread"]


def root_mean_square(values: Tensor) -> Tensor:
    """Return the root of the mean square, which neither vanishes nor overflows on its way.

    Args:
        values: Any shape and any floating-point or complex type; not empty.

    Returns:
        A scalar, float64 where the values are and float32 otherwise.

    Example:
        >>> root_mean_square(torch.tensor([3e-30, -4e-30])).item()
        3.5355...e-30
    """
    wide = _wide(values)
    largest = wide.abs().amax()
    scale = torch.where((largest > 0.0) & largest.isfinite(), largest, torch.ones_like(largest))
    return scale * (wide / scale).square().mean().sqrt()


def spread(values: Tensor) -> Tensor:
    """Return how far examples differ: the root of the mean variance over dimension 0.

    Args:
        values: Output of a layer, examples along dimension 0.

    Returns:
        A scalar; NaN with fewer than two examples, and 0 where they differ by no more than the
        values are rounded to.

    Example:
        >>> round(spread(torch.tensor([[1.0, 5.0], [3.0, 5.0]])).item(), 3)
        1.0
    """
    wide = _wide(values)
    if wide.dim() == 0 or len(wide) < 2:
        return wide.new_full((), float("nan"))
    count = len(wide)
    found = root_mean_square(wide - wide.mean(dim=0)) * (count / (count - 1)) ** 0.5
    rounding = 4.0 * torch.finfo(values.dtype).eps * root_mean_square(wide)
    return torch.where(found <= rounding, torch.zeros_like(found), found)


def _wide(values: Tensor) -> Tensor:
    values = values.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    return values if values.dtype is torch.float64 else values.float()


@dataclass(eq=False)
class _Outputs:
    """What one layer put out, one entry per call."""

    forward: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    edges: list[GradientEdge] = field(default_factory=list)


class Recorder:
    """Watch layers during one forward pass, and read their gradients afterwards.

    Args:
        layers: What to watch, from `matrix_layers`.
        model: All that is called, so that an error can be told where it came from.

    Attributes:
        last_called: Name of the module that was called last.
    """

    def __init__(self, model: nn.Module, layers: Layers) -> None:
        self.last_called = ""
        self._layers = layers
        self._outputs: dict[str, _Outputs] = {}
        self._handles = [
            module.register_forward_hook(self._recorder(name))
            for name, (module, _) in layers.items()
        ]
        self._handles += [
            module.register_forward_pre_hook(self._follower(clean_name(name) or ROOT))
            for name, module in model.named_modules()
        ]

    def _follower(self, name: str) -> Any:  # noqa: ANN401 - a hook
        def follow(_module: nn.Module, _arguments: object) -> None:
            self.last_called = name

        return follow

    def _recorder(self, name: str) -> Any:  # noqa: ANN401 - a hook
        def record(_module: nn.Module, _arguments: object, output: object) -> None:
            tensor = next(floating(output), None)
            if tensor is None or tensor.numel() == 0:
                return
            mine = self._outputs.setdefault(name, _Outputs())
            mine.forward.append((root_mean_square(tensor), spread(tensor)))
            if tensor.requires_grad:
                # Not the tensor itself: an activation in place would take its place.
                mine.edges.append(get_gradient_edge(tensor))

        return record

    def remove(self) -> None:
        """Take all hooks away; before going backward, where checkpointed layers run again."""
        while self._handles:
            self._handles.pop().remove()

    def read(self, ends: Sequence[Tensor], gradients: Sequence[Tensor]) -> tuple[LayerSignal, ...]:
        """Go backward from ``ends``, and return what was seen, in the order of first calls."""
        edges = [edge for outputs in self._outputs.values() for edge in outputs.edges]
        found = iter(
            torch.autograd.grad(ends, edges, gradients, allow_unused=True) if edges else ()
        )
        return tuple(
            self._signal(name, outputs, [next(found) for _ in outputs.edges])
            for name, outputs in self._outputs.items()
        )

    def _signal(
        self, name: str, outputs: _Outputs, gradients: Sequence[Tensor | None]
    ) -> LayerSignal:
        module, role = self._layers[name]
        arrived = [float(root_mean_square(g)) for g in gradients if g is not None]
        return LayerSignal(
            name=name,
            kind=type(module).__name__,
            role=role,
            calls=len(outputs.forward),
            forward_rms=_mean_square([float(rms) for rms, _ in outputs.forward]),
            forward_std=_mean_square([float(std) for _, std in outputs.forward]),
            backward_rms=_mean_square(arrived),
        )


def _mean_square(values: Sequence[float]) -> float:
    """Join what several calls gave; NaN where there was none."""
    largest = max(values, default=math.nan)
    if any(map(math.isnan, values)) or not 0.0 < largest < math.inf:
        return math.nan if any(map(math.isnan, values)) else largest
    return largest * math.sqrt(math.fsum((v / largest) ** 2 for v in values) / len(values))


def floating(output: object) -> Iterator[Tensor]:
    """Yield the floating-point tensors of whatever a module returned, first things first."""
    if isinstance(output, Tensor):
        if output.is_floating_point() or output.is_complex():
            yield output
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from floating(part)
    elif isinstance(output, (tuple, list)):
        for part in output:
            yield from floating(part)
