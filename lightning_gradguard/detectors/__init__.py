"""What can be wrong, one file each; `NonFinite` is the one to read first."""

from lightning_gradguard.detectors.base import Detector
from lightning_gradguard.detectors.diverging import Diverging
from lightning_gradguard.detectors.exploding import Exploding
from lightning_gradguard.detectors.nonfinite import NonFinite
from lightning_gradguard.detectors.not_learning import NotLearning
from lightning_gradguard.detectors.vanishing import Vanishing

__all__ = [
    "Detector",
    "Diverging",
    "Exploding",
    "NonFinite",
    "NotLearning",
    "Vanishing",
    "default_detectors",
]


def default_detectors() -> list[Detector]:
    """Return a fresh set of detectors: one for each kind of fault."""
    return [NonFinite(), Exploding(), Vanishing(), NotLearning(), Diverging()]
