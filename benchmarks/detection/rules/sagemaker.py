"""Amazon SageMaker Debugger's built-in rules.

Source: the AWS developer guide as of 2023-03-17, the last public one, and the package
sagemaker-debugger-rulesconfig of 2021-05. The rules' own code is closed. They judge what was
saved, every 500 steps by default; here they see every step, which is what `WeightUpdateRatio` asks
for and the least delay that the others can have.

Where the guide leaves a choice, the one with fewer false alarms is taken: weights and their
gradients' spread mean tensors of two dimensions or more that an optimizer moves; the loss may rise
by less than 5 % unpunished, so that it counts as stuck only if it moves by less than 0.1 % or so.
`VanishingGradient` names no collection and thus looks at all gradients, biases included.

Left out: `TensorVariance` has no limits by default. `AllZero` must be told where to look; on
gradients it says what `VanishingGradient` says, and on outputs of a ReLU what `DeadRelu` says.
`Overfit`, `Overtraining` and the rules on classes, images, text and trees are about other faults.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.record import Record
from benchmarks.detection.rules.alarm import Alarm, at, in_order

__all__ = ["SageMaker"]


class SageMaker:
    """SageMaker Debugger.

    Args:
        with_loss: Whether `LossNotDecreasing` is among the rules.
    """

    def __init__(self, *, with_loss: bool) -> None:
        self.with_loss = with_loss

    @property
    def name(self) -> str:
        """Of the tool, and of what is switched on."""
        return "SageMaker Debugger" + (" + LossNotDecreasing" if self.with_loss else "")

    def judge(self, record: Record) -> list[Alarm]:
        """Replay a training."""
        alarms = (
            _gradients(record) | _updates(record) | _activations(record) | _initialisation(record)
        )
        return in_order(alarms | (_loss_not_decreasing(record) if self.with_loss else set()))


def _gradients(record: Record) -> set[Alarm]:
    seen, outputs = record.parameters, record.outputs
    is_bad = ~np.isfinite(record.losses)
    for numbers in (seen.grad_norm, seen.weight_norm, outputs.mean, outputs.grad_norm):
        is_bad |= np.isinf(numbers).any(axis=1)
    vanishing = at(record.steps, seen.grad_mean < 1e-7, "vanishing", "VanishingGradient")
    # Named after explosion, and looks for what is not finite: it may be counted as either.
    exploding = at(record.steps, is_bad, "exploding", "ExplodingTensor")
    return vanishing | exploding | at(record.steps, is_bad, "nonfinite", "ExplodingTensor")


def _updates(record: Record) -> set[Alarm]:
    seen, steps = record.parameters, record.steps
    kernels = seen.is_kernel
    with np.errstate(all="ignore"):
        ratio = seen.update_mean[:, kernels] / (seen.weight_mean[:, kernels] + np.float32(1e-9))
    still = seen.unchanged[:, kernels] == 1.0
    for_three = np.zeros_like(still)
    for_three[2:] = still[2:] & still[1:-1] & still[:-2]
    return (
        at(steps, ratio > 10.0, "exploding", "WeightUpdateRatio")
        | at(steps, ratio < 1e-8, "not_learning", "WeightUpdateRatio")
        | at(steps, for_three, "not_learning", "UnchangedTensor")
    )


def _activations(record: Record) -> set[Alarm]:
    outputs = record.outputs
    return at(record.steps, outputs.dead_units > 0.5, "dead", "DeadRelu") | at(
        record.steps, outputs.flat_units > 0.5, "saturated", "SaturatedActivation"
    )


def _initialisation(record: Record) -> set[Alarm]:
    rule, steps, is_early = "PoorWeightInitialization", record.steps, record.steps < 10
    variance = record.outputs.input_variance[:, record.outputs.of("relu")]
    spread = record.parameters.grad_spread[:, record.parameters.is_kernel]
    with np.errstate(all="ignore"):
        largest = np.fmax.reduce(variance, axis=1, initial=-np.inf)
        is_uneven = largest / np.fmin.reduce(variance, axis=1, initial=np.inf) > 10.0
        is_narrow = np.fmin.reduce(spread, axis=1, initial=np.inf) < 1e-3
    late = _last_first(variance) > 1.0
    losses = record.loss_by_step[:10]
    stuck = np.array([_steps_since_best(losses[: step + 1]) >= 5 for step in range(len(losses))])
    return (
        at(steps, is_early & is_uneven & late, "exploding", rule)
        | at(steps, is_early & is_uneven & ~late, "vanishing", rule)
        | at(steps, is_early & is_narrow, "vanishing", rule)
        | at(np.arange(len(stuck)), stuck, "not_learning", rule)
    )


def _last_first(variance: NDArray[np.float32]) -> NDArray[np.float32]:
    if not variance.shape[1]:
        return np.ones(len(variance), dtype=np.float32)
    with np.errstate(all="ignore"):
        return variance[:, -1] / variance[:, 0]


def _steps_since_best(losses: NDArray[np.float64]) -> int:
    best = np.nan_to_num(losses, nan=np.inf).argmin()
    return len(losses) - 1 - int(best)


def _loss_not_decreasing(record: Record) -> set[Alarm]:
    losses = record.loss_by_step
    steps = np.arange(10, len(losses), 10)
    with np.errstate(all="ignore"):
        fall = (losses[steps - 10] - losses[steps]) / np.abs(losses[steps - 10])
    is_stuck = np.abs(fall) < 1e-3
    return at(steps, is_stuck, "not_learning", "LossNotDecreasing") | at(
        steps, fall < -0.05, "diverging", "LossNotDecreasing"
    )
