"""Rules that other tools publish, replayed over a `Record`."""

from typing import Final

from benchmarks.detection.rules.alarm import Alarm, RuleSet
from benchmarks.detection.rules.autotrainer import AutoTrainer
from benchmarks.detection.rules.deepchecker import TheDeepChecker
from benchmarks.detection.rules.fixed import FixedThresholds
from benchmarks.detection.rules.sagemaker import SageMaker
from benchmarks.detection.rules.torchmortem import Torchmortem

__all__ = ["ALL_RULES", "Alarm", "RuleSet"]

ALL_RULES: Final[tuple[RuleSet, ...]] = (
    FixedThresholds(),
    SageMaker(with_loss=False),
    SageMaker(with_loss=True),
    AutoTrainer(),
    TheDeepChecker(with_loss=False),
    TheDeepChecker(with_loss=True),
    Torchmortem(with_saturation=False),
    Torchmortem(with_saturation=True),
)
