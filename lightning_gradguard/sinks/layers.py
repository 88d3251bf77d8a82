"""Which layers get a chart of their own.

In: frames. Out: a choice of layers that is made once and then kept, since a chart whose layer
changes cannot be read.
"""

from __future__ import annotations

import numpy as np

from lightning_gradguard.frame import Frame

__all__ = ["spread_over_depth", "unusual_layers"]


def unusual_layers(history: list[Frame], *, most: int) -> tuple[str, ...]:
    """Return the layers whose gradient norm strays furthest from its own median.

    Args:
        history: A few frames of one optimizer, at least one.
        most: Up to this many layers; with fewer in the model, all of them.

    Returns:
        Names, in depth order.
    """
    layers = history[-1].layers
    if len(layers) <= most:
        return layers
    norms = np.array([frame.grad_norm for frame in history if frame.layers == layers])
    logs = np.log10(np.where(norms > 0.0, norms, np.nan))
    distance = np.array([_largest_distance(column) for column in logs.T])
    chosen = np.sort(np.argsort(-distance, kind="stable")[:most])
    return tuple(layers[index] for index in chosen)


def spread_over_depth(layers: tuple[str, ...], *, most: int) -> tuple[str, ...]:
    """Return up to ``most`` layers, first and last included, evenly spaced over depth.

    Example:
        >>> spread_over_depth(tuple("abcdefg"), most=3)
        ('a', 'd', 'g')
    """
    if len(layers) <= most:
        return layers
    places = np.linspace(0, len(layers) - 1, most).round().astype(int)
    return tuple(layers[place] for place in places)


def _largest_distance(logs: np.ndarray) -> float:
    known = logs[np.isfinite(logs)]
    if known.size == 0:
        return np.inf  # never a usable gradient: nothing is more unusual
    return float(np.max(np.abs(known - np.median(known))))
