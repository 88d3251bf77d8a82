"""The monitor's look at all gradients, against the least that anybody could do.

In: a model. Out: CPU seconds of `Probe.before_update`, and of all that the probe does in a step,
beside those of ``torch._foreach_norm`` over the same gradients: one read of each, in C++.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.models import Subject, Training
from benchmarks.shares import WARM_UP, Share, share
from lightning_gradguard import Probe
from lightning_gradguard.assemble import StepContext

__all__ = ["StatisticsPass", "probe_step", "statistics_pass"]


@dataclass(frozen=True)
class StatisticsPass:
    """Costs on one model.

    Attributes:
        norms: Milliseconds of ``_foreach_norm`` and ``stack``.
        look: Milliseconds of `Probe.before_update`.
        whole: Milliseconds of all that the probe does in a step.
        ratio: `look` over `norms`, round by round.
        whole_ratio: `whole` over `norms`, round by round.
    """

    norms: Share
    look: Share
    whole: Share
    ratio: Share
    whole_ratio: Share


def statistics_pass(subject: Subject, rounds: int) -> StatisticsPass:
    """Measure both in turn, on the same gradients.

    Args:
        subject: The model.
        rounds: How often.
    """
    torch.manual_seed(0)
    training = Training(subject.network())
    probe = Probe(training)
    training.training_step(subject.data(2), 0).backward()  # type: ignore[no-untyped-call]
    parameters = list(training.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms, looks, wholes = [], [], []
    for step in range(rounds + WARM_UP):
        norms.append(_seconds(lambda: torch.stack(torch._foreach_norm(gradients))))  # noqa: SLF001 - what is compared
        look, rest = probe_step(probe, parameters, step)
        looks.append(look)
        wholes.append(look + rest)
    probe.flush()
    norms, looks, wholes = norms[WARM_UP:], looks[WARM_UP:], wholes[WARM_UP:]
    return StatisticsPass(
        norms=share([1e3 * seconds for seconds in norms]),
        look=share([1e3 * seconds for seconds in looks]),
        whole=share([1e3 * seconds for seconds in wholes]),
        ratio=share([look / norm for look, norm in zip(looks, norms, strict=True)]),
        whole_ratio=share([whole / norm for whole, norm in zip(wholes, norms, strict=True)]),
    )


def probe_step(probe: Probe, parameters: list[nn.Parameter], step: int) -> tuple[float, float]:
    """Return CPU seconds of the look at the gradients, and of the rest of the probe's step."""
    context = StepContext(step=step, batch_idx=step)
    look = _seconds(lambda: probe.before_update(parameters, context))
    rest = _seconds(lambda: probe.after_update(0)) + _seconds(probe.collect)
    return look, rest


def _seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start
