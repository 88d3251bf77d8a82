"""One step made of a few numbers, to try a remedy on.

In: a gradient. Out: a `Moment`. For docstrings, tests and your own remedies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradguard.episodes import Episode
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.remedies.base import Moment
from lightning_gradguard.remedies.gradients import Gradients, Member, Roster

__all__ = ["moment_of", "trouble"]


def moment_of(
    gradient: Tensor | Sequence[float],
    weight: Tensor | None = None,
    *,
    step: int = 0,
    **more: Any,  # noqa: ANN401 - the other fields of `Moment`, as they are
) -> Moment:
    """Return the step of a model of one parameter, named ``weight``.

    Args:
        gradient: Its gradient.
        weight: Its value; zeros by default.
        step: Completed optimizer steps.
        more: Any other field of `Moment`.

    Example:
        >>> moment_of([3.0, 4.0]).gradients.norm.item()
        5.0
    """
    gradient = torch.as_tensor(gradient)
    parameter = nn.Parameter(torch.zeros_like(gradient) if weight is None else weight.clone())
    parameter.grad = gradient.clone()
    member = Member(parameter, "weight", "layer")
    return Moment(step=step, gradients=Gradients.of(Roster((member,))), **more)


def trouble(kind: str, *, step: int, since_step: int | None = None) -> Episode:
    """Return a fault that goes on.

    Args:
        kind: Its kind.
        step: When it was last seen.
        since_step: When it was first seen; None is the same step.

    Example:
        >>> trouble("diverging", step=7).last.step
        7
    """
    since = step if since_step is None else since_step
    finding = Finding(
        kind=kind, severity=Severity.ERROR, step=step, since_step=since, message="trouble"
    )
    return Episode(finding, finding, 1, is_open=True, worst=finding)
