"""The initialisation check: does the signal survive the depth, before the first step?

In: a model and a batch, on request. Out: a `Preflight`. Nothing is trained and nothing is changed.
"""

from lightning_gradguard.initialisation.check import preflight
from lightning_gradguard.initialisation.record import Preflight
from lightning_gradguard.initialisation.signal import LayerSignal, Signal

__all__ = ["LayerSignal", "Preflight", "Signal", "preflight"]
