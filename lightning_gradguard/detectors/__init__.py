"""What can be wrong, one file each; `NonFinite` is the one to read first."""

from lightning_gradguard.detectors.base import Detector
from lightning_gradguard.detectors.clip_dominated import ClipDominated
from lightning_gradguard.detectors.cut_off import CutOff
from lightning_gradguard.detectors.dead import Dead
from lightning_gradguard.detectors.defaults import Sensitivity, default_detectors
from lightning_gradguard.detectors.diverging import Diverging
from lightning_gradguard.detectors.exploding import Exploding
from lightning_gradguard.detectors.fading import Fading
from lightning_gradguard.detectors.flat import Flat
from lightning_gradguard.detectors.forgetting import Forgetting
from lightning_gradguard.detectors.growth import Growth
from lightning_gradguard.detectors.inward import Inward
from lightning_gradguard.detectors.nonfinite import NonFinite
from lightning_gradguard.detectors.not_learning import NotLearning
from lightning_gradguard.detectors.oversized import Oversized
from lightning_gradguard.detectors.saturated import Saturated
from lightning_gradguard.detectors.scheduler_drift import SchedulerDrift
from lightning_gradguard.detectors.shallow import Shallow
from lightning_gradguard.detectors.slow import Slow
from lightning_gradguard.detectors.spike import Spike
from lightning_gradguard.detectors.stale import Stale
from lightning_gradguard.detectors.undone import Undone
from lightning_gradguard.detectors.unfired import Unfired
from lightning_gradguard.detectors.unused_parameters import UnusedParameters
from lightning_gradguard.detectors.vanishing import Vanishing
from lightning_gradguard.detectors.withering import Withering

__all__ = [
    "ClipDominated",
    "CutOff",
    "Dead",
    "Detector",
    "Diverging",
    "Exploding",
    "Fading",
    "Flat",
    "Forgetting",
    "Growth",
    "Inward",
    "NonFinite",
    "NotLearning",
    "Oversized",
    "Saturated",
    "SchedulerDrift",
    "Sensitivity",
    "Shallow",
    "Slow",
    "Spike",
    "Stale",
    "Undone",
    "Unfired",
    "UnusedParameters",
    "Vanishing",
    "Withering",
    "default_detectors",
]
