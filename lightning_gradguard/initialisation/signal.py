"""A model's signal from one initialisation, as a record.

In: numbers per layer. Out: what follows from them: ratios, decades per layer, whether the signal is
kept. Knows no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, Final, Literal

from lightning_gradguard.roles import LEFT_OUT, Role

__all__ = [
    "FEWEST_LAYERS",
    "GROWS_DECADES",
    "SHRINKS_DECADES",
    "LayerSignal",
    "Signal",
    "Status",
    "finite",
    "is_too_much",
]

Status = Literal["kept", "shrinks", "grows", "lost", "nonfinite", "unknown"]

SHRINKS_DECADES: Final = 2.0
GROWS_DECADES: Final = 1.5
"""Decades from one end to the other from which on a signal is not kept. In the benchmark, of the
networks beyond these limits none learned."""

FEWEST_LAYERS: Final = 3
"""Layers with a weight matrix that it takes to speak of depth."""

_NUMBERS: Final = (
    "forward_ratio",
    "backward_ratio",
    "forward_decades_per_layer",
    "backward_decades_per_layer",
    "forward_decades",
    "backward_decades",
)


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

    @property
    def is_finite(self) -> bool:
        """Whether neither output nor gradient is infinite, and the output is a number."""
        return math.isfinite(self.forward_rms) and not math.isinf(self.backward_rms)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON types; None where a number is NaN or infinite."""
        return {k: finite(v) if isinstance(v, float) else v for k, v in asdict(self).items()}


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

    @property
    def worst_decades(self) -> float:
        """The larger of what is added to the two, without its sign; infinite if it is unknown."""
        both = (abs(self.forward_decades), abs(self.backward_decades))
        return math.inf if any(map(math.isnan, both)) else max(both)

    @property
    def status(self) -> Status:
        """Whether the signal is kept, in one word."""
        if not all(layer.is_finite for layer in self.layers):
            return "nonfinite"
        if len(self.judged) < FEWEST_LAYERS:
            return "unknown"
        changed = [d for d in (self.forward_decades, self.backward_decades) if is_too_much(d)]
        if changed:
            return "shrinks" if max(changed, key=abs) < 0.0 else "grows"
        return "lost" if self.unreached or self.silent else "kept"

    @property
    def unreached(self) -> tuple[LayerSignal, ...]:
        """The first layers, if no gradient arrives there; a layer in between is no matter."""
        return tuple(takewhile(lambda layer: not layer.backward_rms > 0.0, self.judged))

    @property
    def silent(self) -> tuple[LayerSignal, ...]:
        """The last layers, if all examples look alike there, in the order of first calls."""
        return tuple(takewhile(lambda layer: not layer.forward > 0.0, self.judged[::-1]))[::-1]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; None where a number is NaN or infinite."""
        return {
            "initialisation": self.initialisation,
            "status": self.status,
            **{name: finite(getattr(self, name)) for name in _NUMBERS},
            "layers": [layer.to_dict() for layer in self.layers],
        }


def is_too_much(decades: float) -> bool:
    """Whether depth adds so much to a signal, or takes so much of it, that it is not kept.

    Example:
        >>> [is_too_much(decades) for decades in (-3.0, -1.0, 1.0, 3.0, float("nan"))]
        [True, False, False, True, False]
    """
    return decades <= -SHRINKS_DECADES or decades >= GROWS_DECADES


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


def finite(value: float) -> float | None:
    """Return a number as JSON has it: None where it is NaN or infinite."""
    return value if math.isfinite(value) else None
