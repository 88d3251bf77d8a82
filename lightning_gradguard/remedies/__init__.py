"""What can be done, one file each; `ClipNorm` is the one to read first."""

from lightning_gradguard.remedies.agc import AGC
from lightning_gradguard.remedies.autoclip import AutoClip
from lightning_gradguard.remedies.base import (
    Clamp,
    Decision,
    GoBack,
    LearningRate,
    Moment,
    Remedy,
    Scale,
    ScaleUnits,
    Skip,
    Stop,
)
from lightning_gradguard.remedies.clip_norm import ClipNorm
from lightning_gradguard.remedies.clip_value import ClipValue
from lightning_gradguard.remedies.limit_updates import LimitUpdates
from lightning_gradguard.remedies.once_slowed import OnceSlowed
from lightning_gradguard.remedies.only import Only
from lightning_gradguard.remedies.reduce_lr import ReduceLearningRate
from lightning_gradguard.remedies.robust import Robust
from lightning_gradguard.remedies.rollback import Rollback
from lightning_gradguard.remedies.skip_loss_spike import SkipLossSpike
from lightning_gradguard.remedies.skip_nonfinite import SkipNonFinite
from lightning_gradguard.remedies.skip_outlier import SkipOutlier
from lightning_gradguard.remedies.stop import StopTraining
from lightning_gradguard.remedies.zclip import ZClip

__all__ = [
    "AGC",
    "AutoClip",
    "Clamp",
    "ClipNorm",
    "ClipValue",
    "Decision",
    "GoBack",
    "LearningRate",
    "LimitUpdates",
    "Moment",
    "OnceSlowed",
    "Only",
    "ReduceLearningRate",
    "Remedy",
    "Robust",
    "Rollback",
    "Scale",
    "ScaleUnits",
    "Skip",
    "SkipLossSpike",
    "SkipNonFinite",
    "SkipOutlier",
    "Stop",
    "StopTraining",
    "ZClip",
]
