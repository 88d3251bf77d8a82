"""What a remedy sees and what it may ask for.

In: one optimizer step whose gradients are complete. Out: decisions, as data. A remedy writes to
nothing; `actions` alone does. What is decided for this very step stays on the device as a tensor,
so that nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from lightning_gradguard import options
from lightning_gradguard.episodes import Episode
from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.remedies.gradients import Gradients

__all__ = [
    "Clamp",
    "Decision",
    "GoBack",
    "LearningRate",
    "Moment",
    "Remedy",
    "Scale",
    "ScaleUnits",
    "Skip",
    "Stop",
]


@dataclass(frozen=True, eq=False, kw_only=True)
class Moment:
    """One optimizer step, when its gradients are complete and not clipped yet.

    Attributes:
        step: Optimizer steps of this optimizer that are complete.
        gradients: Those of this optimizer.
        optimizer_index: Position of the optimizer.
        loss: Of this step, without any gradient scale, mean over all ranks, shape ``()``; None
            where it was not seen.
        is_first_look: Whether this is the first look at this step: a line search looks several
            times, and only the first one is to be learned from.
        has_scaler: Whether a gradient scaler refuses steps that overflow, as it should.
        frames: Steps of this optimizer that the monitor has judged since the last moment.
        findings: What it found in them.
        episodes: Faults of this optimizer that go on.
        lr_factor: What cuts had multiplied the learning rates by in the step before, the smallest
            of all groups; limits of that step alone do not count.
    """

    step: int
    gradients: Gradients
    optimizer_index: int = 0
    loss: Tensor | None = None
    is_first_look: bool = True
    has_scaler: bool = False
    frames: Sequence[Frame] = ()
    findings: Sequence[Finding] = ()
    episodes: Sequence[Episode] = ()
    lr_factor: float = 1.0


def _check_tensor(argument: str, value: object, *, dims: Sequence[int]) -> None:
    if not isinstance(value, Tensor) or value.dim() not in dims:
        shapes = " or ".join("()" if dim == 0 else "(members,)" for dim in dims)
        msg = f"`{argument}` must be a tensor of shape {shapes}, got {value!r}."
        raise TypeError(msg)


@dataclass(frozen=True, eq=False)
class Scale:
    """Multiply gradients by factors of at most 1; of several, the smallest holds.

    Attributes:
        factors: One for all, shape ``()``, or one per member of the roster, ``(members,)``.
        name: What asks for it.
    """

    factors: Tensor
    name: str

    def __post_init__(self) -> None:
        _check_tensor("factors", self.factors, dims=(0, 1))


@dataclass(frozen=True, eq=False)
class ScaleUnits:
    """Multiply the gradients of single output units by factors of at most 1.

    Attributes:
        factors: By position in the roster, ``(units,)`` each.
        name: What asks for it.
        norms: The units' gradient norms, where they are known, so that nobody measures again.
    """

    factors: Mapping[int, Tensor]
    name: str
    norms: Mapping[int, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Clamp:
    """Limit the magnitude of each entry.

    Attributes:
        limit: The largest magnitude; ``> 0``.
        members: Whose gradients, by position in the roster; None is all.
        name: What asks for it.
    """

    limit: float
    name: str
    members: Sequence[int] | None = None

    def __post_init__(self) -> None:
        options.check_positive(limit=self.limit)


@dataclass(frozen=True, eq=False)
class Skip:
    """Let this step never have happened, if a flag says so.

    Attributes:
        when: True or False, shape ``()``, where the gradients are.
        why: What the flag means.
        value: The number that was judged, shape ``()``.
        limit: What it was judged against, shape ``()``.
    """

    when: Tensor
    why: str
    value: Tensor | None = None
    limit: Tensor | None = None

    def __post_init__(self) -> None:
        _check_tensor("when", self.when, dims=(0,))


@dataclass(frozen=True)
class LearningRate:
    """Multiply learning rates from this step on; of several, the smallest holds.

    Attributes:
        factor: In ``(0, 1]``; 1 is the user's own rate.
        why: What changed it; empty while it stays as it was.
        groups: Positions of the parameter groups; None is all.
        is_cut: Whether something went wrong. False for a limit of this one step, which is counted
            and not recorded.
    """

    factor: float
    why: str = ""
    groups: Sequence[int] | None = None
    is_cut: bool = True

    def __post_init__(self) -> None:
        options.check_positive(factor=self.factor)
        if self.factor > 1.0:
            msg = f"`factor` must be at most 1, got {self.factor!r}: a guard never speeds up."
            raise ValueError(msg)


@dataclass(frozen=True)
class GoBack:
    """Go back to the newest state that is older than a step.

    Attributes:
        before_step: First step that is not to be trusted.
        why: What happened.
    """

    before_step: int
    why: str

    def __post_init__(self) -> None:
        options.check_count("before_step", self.before_step, least=0)


@dataclass(frozen=True)
class Stop:
    """End the training.

    Attributes:
        why: The reason.
        as_error: Whether to raise instead of stopping after this step.
    """

    why: str
    as_error: bool = False


Decision: TypeAlias = Scale | ScaleUnits | Clamp | Skip | LearningRate | GoBack | Stop
"""Everything a remedy may ask for."""


@runtime_checkable
class Remedy(Protocol):
    """Anything with this one method.

    A remedy that keeps something also has ``state_dict``, of JSON types, and ``load_state_dict``.
    Each optimizer gets its own copy.

    Example:
        >>> class HalveEverything:
        ...     def decide(self, moment):
        ...         return [Scale(moment.gradients.norm.new_tensor(0.5), "half")]
        >>> isinstance(HalveEverything(), Remedy)
        True
    """

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Look at a step and say what should be done with it.

        Called on every rank, once per step (more often under a line search), in the training
        thread. Under several ranks gradients and loss are the same everywhere; what else a
        remedy looks at may differ, and then the most careful rank is followed.
        """
        ...
