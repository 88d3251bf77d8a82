"""TheDeepChecker's checks during training.

Source: Ben Braiek and Khomh, TOSEM 2022; its repository as of 2022-11, `hooks.py`, with the
defaults that the paper and ports of it give. It runs them while a batch is overfitted, and judges
every ten steps, the loss by the mean of ten, activations by the last ten batches. Here they watch
the training itself, from the tenth step on.

The F-test at 0.1 compares the ratio of two variances with 2.706, whatever the sample. Kernels are
judged and biases are not, as there. A unit saturates by its mean distance from the middle of the
range of its function; the last module of a model is an output and not an activation.

Left out: what is checked before training (data, initial weights and loss, numerical gradients)
or after it (augmentation, regularisation), signs of weights, ranges and shapes of outputs, and the
correlation of loss and metric: they find other faults than those labelled here.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.record import Record
from benchmarks.detection.rules.alarm import Alarm, Kind, at, in_order

__all__ = ["TheDeepChecker"]

Array = NDArray[np.floating[Any]]

PERIOD: Final = 10
WINDOW: Final = 5
F_CRITICAL: Final = 2.70554


class TheDeepChecker:
    """TheDeepChecker.

    Args:
        with_loss: Whether the shape of the loss curve is judged.
    """

    def __init__(self, *, with_loss: bool) -> None:
        self.with_loss = with_loss

    @property
    def name(self) -> str:
        """Of the tool, and of what is switched on."""
        return "TheDeepChecker" + (" + loss" if self.with_loss else "")

    def judge(self, record: Record) -> list[Alarm]:
        """Replay a training."""
        alarms = _numbers(record) | _gradients(record) | _weights(record) | _activations(record)
        return in_order(alarms | (_loss(record) if self.with_loss else set()))


def _numbers(record: Record) -> set[Alarm]:
    seen = record.parameters
    is_bad = ~np.isfinite(record.losses)
    for numbers in (seen.grad_norm, seen.weight_norm, record.outputs.mean):
        is_bad |= np.isinf(numbers).any(axis=1)
    return at(record.steps, is_bad, "nonfinite", "numerical instability")


def _gradients(record: Record) -> set[Alarm]:
    seen = record.parameters
    means = record.by_step(seen.grad_mean[:, seen.is_kernel])
    vanishing = (means < 1e-6) | _in_a_row(_changes(means) <= 0.5)
    exploding = (means > 1e6) | _in_a_row(_changes(means) >= 2.0)
    return _due(vanishing & np.isfinite(means), "vanishing", "vanishing gradient") | _due(
        exploding & np.isfinite(means), "exploding", "exploding gradient"
    )


def _weights(record: Record) -> set[Alarm]:
    seen, kernels = record.parameters, record.parameters.is_kernel
    small = record.by_step(seen.weight_small[:, kernels])
    means = record.by_step(seen.weight_mean[:, kernels])
    growing = ((means > 1e8) | _in_a_row(_changes(means) >= 2.0)) & np.isfinite(means)
    ratio = _update_ratio(record.by_step(seen.update_mean[:, kernels]), means)
    return (
        _due(small > 0.95, "dead", "dead weights")
        | _due(growing, "exploding", "diverging weights")
        | _due(ratio == 0.0, "not_learning", "untrained weights")
        | _due(ratio < -4.0, "not_learning", "slow updates")
        | _due((ratio > -1.0) & (ratio != 0.0), "diverging", "fast updates")
    )


def _update_ratio(updates: Array, weights: Array) -> Array:
    """Return the mean decimal logarithm over a period, and 0 for what is not trained."""
    with np.errstate(all="ignore"):
        ratio = np.log10(updates / weights)
    ratio[updates == 0.0] = 0.0
    ratio[weights == 0.0] = np.nan
    mean = _mean_of_period(ratio)
    return np.where(np.isfinite(mean), mean, np.nan)


def _activations(record: Record) -> set[Alarm]:
    outputs = record.outputs
    squashing, others = outputs.of("tanh", "sigmoid"), outputs.of("relu", "activation")
    squashing[-1:] = others[-1:] = False
    variance = _variance_of_period(record)[:, squashing | others]
    dead = record.by_step(outputs.idle_units[:, others])
    saturated = record.by_step(outputs.saturated_units[:, squashing])
    return (
        _due(dead > 0.5, "dead", "dead activations")
        | _due(saturated > 0.5, "saturated", "saturated activations")
        | _due(variance < 0.5**2 / F_CRITICAL, "vanishing", "activation distribution")
        | _due(variance > 2.0**2 * F_CRITICAL, "exploding", "activation distribution")
    )


def _loss(record: Record) -> set[Alarm]:
    every = record.loss_by_step
    losses = every[: len(every) // PERIOD * PERIOD].reshape(-1, PERIOD).mean(axis=1)
    steps = (np.arange(len(losses)) + 1) * PERIOD - 1
    change = _changes(losses[:, None])
    rough = [_smoothness(losses[max(0, end - 49) : end + 1]) < 0.5 for end in range(len(losses))]
    return (
        at(steps, _in_a_row(1.0 - change < 0.05), "not_learning", "stagnated loss")
        | at(steps, _in_a_row(change >= 2.0), "diverging", "diverging loss")
        | at(steps, np.array(rough, dtype=bool), "diverging", "fluctuating loss")
    )


def _smoothness(losses: Array) -> float:
    """Return one less the share of turns from rising to falling and back."""
    with np.errstate(all="ignore"):
        is_rising = losses[1:] / losses[:-1] > 1.0
    return 1.0 - float((is_rising[1:] != is_rising[:-1]).sum()) / len(losses)


def _due(trips: NDArray[np.bool_], kind: Kind, rule: str) -> set[Alarm]:
    """Return the alarms of the steps at which it judges."""
    steps = np.arange(PERIOD - 1, len(trips), PERIOD)
    return at(steps, trips[steps], kind, rule)


def _changes(values: Array) -> Array:
    """Return each row over the one before."""
    changes = np.full_like(values, np.nan)
    with np.errstate(all="ignore"):
        changes[1:] = values[1:] / values[:-1]
    return changes


def _in_a_row(holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where it holds for all changes of a window."""
    result = np.zeros_like(holds)
    for row in range(WINDOW - 2, len(holds)):
        result[row] = holds[row - WINDOW + 2 : row + 1].all(axis=0)
    return result


def _mean_of_period(values: Array) -> Array:
    """Return the mean of the last ten rows, of what is there."""
    means = np.full_like(values, np.nan)
    for row in range(PERIOD - 1, len(values)):
        part = values[row + 1 - PERIOD : row + 1]
        with np.errstate(all="ignore"):
            means[row] = np.nansum(part, axis=0) / (~np.isnan(part)).sum(axis=0)
    return means


def _variance_of_period(record: Record) -> Array:
    """Return the variance of all outputs of the last ten steps, taken together."""
    middles, spreads = record.by_step(record.outputs.mean), record.by_step(record.outputs.std)
    with np.errstate(all="ignore"):
        within = _mean_of_period(spreads**2)
        between = _mean_of_period((middles - _mean_of_period(middles)) ** 2)
    variance = within + between
    return np.where(np.isfinite(variance), variance, np.nan)
