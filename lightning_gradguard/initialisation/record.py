"""What was measured at initialisation, as records.

In: numbers per layer. Out: what follows from them: ratios, decades per layer, whether the signal is
kept. Knows no torch; sentences are made in `words`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from lightning_gradguard.roles import LEFT_OUT, Role

__all__ = ["FEWEST_LAYERS", "LIMIT_DECADES", "LayerSignal", "Preflight", "Signal", "Status"]

Status = Literal["kept", "shrinks", "grows", "lost", "nonfinite", "unknown"]

LIMIT_DECADES: Final = 2.0
"""Decades from one end to the other from which on a signal is not kept; see the benchmark."""

FEWEST_LAYERS: Final = 3
"""Layers with a weight matrix that it takes to speak of depth."""


@dataclass(frozen=True, kw_only=True)
class LayerSignal:
    """One layer with a weight matrix, at initialisation.

    Attributes:
        name: Its name in the model.
        kind: Its class, such as ``"Linear"``.
        role: What it is, see `roles`; embeddings are measured and not judged.
        calls: How often it was called; the other numbers are over all calls.
        forward_rms: Root mean square of what it puts out; ``>= 0``, in the unit of the output.
        forward_std: How far examples differ there: the root of the mean variance over dimension
            0. This is the signal; biases are in ``forward_rms`` only. 0 where examples differ by
            no more than rounding, NaN with a single example.
        backward_rms: Root mean square of the gradient with respect to what it puts out; ``>= 0``,
            NaN where none arrives.
    """

    name: str
    kind: str
    role: Role
    calls: int
    forward_rms: float
    forward_std: float
    backward_rms: float

    @property
    def forward(self) -> float:
        """The forward signal: ``forward_std``, or ``forward_rms`` with a single example."""
        return self.forward_rms if math.isnan(self.forward_std) else self.forward_std


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A model's signal from one initialisation. Decades are factors of ten.

    Attributes:
        initialisation: ``"as given"``, or what the weight matrices were drawn by.
        layers: In the order of first calls.
    """

    initialisation: str
    layers: tuple[LayerSignal, ...]

    @property
    def judged(self) -> tuple[LayerSignal, ...]:
        """The layers that depth is judged by."""
        return tuple(layer for layer in self.layers if layer.role not in LEFT_OUT)

    @property
    def forward_decades_per_layer(self) -> float:
        """What a layer adds to the forward signal on its way to the loss; below 0 it shrinks."""
        return _slope([layer.forward for layer in self.judged])

    @property
    def backward_decades_per_layer(self) -> float:
        """What a layer adds to the gradient on its way to the input; below 0 it shrinks."""
        return _slope([layer.backward_rms for layer in self.judged[::-1]])

    @property
    def forward_decades(self) -> float:
        """What all layers add to the forward signal, along the fitted line."""
        return self.forward_decades_per_layer * (len(self.judged) - 1)

    @property
    def backward_decades(self) -> float:
        """What all layers add to the gradient, along the fitted line."""
        return self.backward_decades_per_layer * (len(self.judged) - 1)

    @property
    def forward_ratio(self) -> float:
        """Forward signal at the last layer over that at the first."""
        return _ratio([layer.forward for layer in self.judged])

    @property
    def backward_ratio(self) -> float:
        """Gradient at the first layer over that at the last: both ratios run with the signal."""
        return _ratio([layer.backward_rms for layer in self.judged[::-1]])


def _slope(values: Sequence[float]) -> float:
    """Return decades per layer, by least squares; NaN with fewer than two usable values."""
    points = [(x, math.log10(y)) for x, y in enumerate(values) if 0.0 < y < math.inf]
    if len(points) < 2:
        return math.nan
    center = math.fsum(x for x, _ in points) / len(points)
    squares = math.fsum((x - center) ** 2 for x, _ in points)
    return math.fsum((x - center) * y for x, y in points) / squares


def _ratio(values: Sequence[float]) -> float:
    if not values or not values[0] > 0.0:
        return math.nan
    return values[-1] / values[0]
