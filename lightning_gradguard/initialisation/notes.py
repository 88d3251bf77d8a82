"""What is to be known beside the numbers of the initialisation check.

In: a model, its layers, what was measured. Out: sentences without a full stop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from lightning_gradguard.findings import layer_phrase
from lightning_gradguard.initialisation.draws import can_be_drawn
from lightning_gradguard.initialisation.layers import Layers
from lightning_gradguard.initialisation.signal import LayerSignal, Signal
from lightning_gradguard.roles import LEFT_OUT
from lightning_gradguard.scope import ROOT, is_matrix

__all__ = ["notes_on", "zero_layers"]


def notes_on(model: nn.Module, layers: Layers, given: Signal) -> Iterator[str]:
    """Yield what is special about a model or its measurement."""
    if not model.training:
        yield "in eval mode: dropout is off, and norms use their running statistics"
    if all(_is_one_example(layer) for layer in given.layers):
        yield "one example only: the output's root mean square stands for the signal"
    lists = {
        "all weights are zero, so that no gradient passes": zero_layers(layers),
        "not called, so not measured": _not_called(layers, given),
        "without a gradient": _without_gradient(given),
        "weights stay as they are in the comparison": _kept(layers),
        "frozen, and measured as if not": _frozen(layers),
    }
    for what, names in lists.items():
        if found := tuple(names):
            yield f"{what}: {layer_phrase(found)}"


def _is_one_example(layer: LayerSignal) -> bool:
    return math.isnan(layer.forward_std) and math.isfinite(layer.forward_rms)


def zero_layers(layers: Layers) -> Iterator[str]:
    """Yield the layers with weight matrices that are all zero."""
    for name, (module, _) in layers.items():
        own = [p for p in module.parameters(recurse=False) if is_matrix(p)]
        if own and not any(bool(parameter.any()) for parameter in own):
            yield name


def _not_called(layers: Layers, given: Signal) -> Iterator[str]:
    called = {layer.name for layer in given.layers}
    # Attention uses the weights of its last projection without calling it.
    inside = tuple(
        "" if name == ROOT else f"{name}."
        for name, (module, _) in layers.items()
        if isinstance(module, nn.MultiheadAttention)
    )
    return (name for name in layers if name not in called and not name.startswith(inside))


def _without_gradient(given: Signal) -> Iterator[str]:
    return (layer.name for layer in given.layers if not layer.backward_rms > 0.0)


def _kept(layers: Layers) -> Iterator[str]:
    for name, (module, role) in layers.items():
        own = [p for p in module.parameters() if is_matrix(p)]
        if role not in LEFT_OUT and not any(can_be_drawn(module, parameter) for parameter in own):
            yield name


def _frozen(layers: Layers) -> Iterator[str]:
    for name, (module, _) in layers.items():
        if not any(parameter.requires_grad for parameter in module.parameters()):
            yield name
