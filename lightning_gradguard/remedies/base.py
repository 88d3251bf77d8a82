"""What a remedy sees and what it may ask for.

In: one optimizer step whose gradients are complete. Out: decisions, as data. A remedy writes to
nothing; `actions` alone does. What is decided for this very step stays on the device as a tensor,
so that nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
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
    "sizes_of",
]


@dataclass(frozen=True, eq=False, kw_only=True)
class Moment:
    """One optimizer step, when its gradients are complete and not clipped yet.

    Attributes:
        step: Optimizer steps of this optimizer that are complete.
        gradients: Those of this optimizer.
        optimizer_index: Position of the optimizer.
        loss: Of this step, without any gradient scale, mean over all ranks, shape ``()``: the sum
            of all that went backward since any optimizer stepped last. None where none was seen.
        is_first_look: Whether this is the first look at this step: a line search looks several
            times, and only the first one is to be learned from.
        has_scaler: Whether a gradient scaler refuses steps that overflow, as it should.
        frames: Steps of this optimizer that the monitor has judged since the last moment.
        findings: What it found in them.
        episodes: Faults of this optimizer that go on.
        lr_factor: What cuts had multiplied the learning rates by in the step before, the smallest
            of all groups; limits of that step alone do not count.
        learning_rates: The user's own, one per parameter group; NaN for one that is on a device.
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
    learning_rates: tuple[float, ...] = ()


def _check_tensor(
    argument: str, value: object, *, dims: Sequence[int] = (0,), what: str = "()"
) -> None:
    if not isinstance(value, Tensor) or value.dim() not in dims or value.is_complex():
        msg = f"`{argument}` must be a tensor of real numbers of shape {what}, got {value!r}."
        raise TypeError(msg)


def _check_units(argument: str, tables: object) -> None:
    if not isinstance(tables, Mapping):
        msg = f"`{argument}` must be a dict from positions to tensors, got {tables!r}."
        raise TypeError(msg)
    options.check_positions(f"{argument}.keys()", list(tables))
    for position, numbers in tables.items():
        _check_tensor(f"{argument}[{position}]", numbers, dims=(1,), what="(units,)")


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
        _check_tensor("factors", self.factors, dims=(0, 1), what="() or (members,)")
        options.check_text(name=self.name)


def sizes_of(tables: Mapping[int, Tensor]) -> dict[int, int]:
    """Return how many units each table speaks of.

    Example:
        >>> sizes_of({2: torch.ones(3)})
        {2: 3}
    """
    return {position: len(numbers) for position, numbers in tables.items()}


@dataclass(frozen=True, eq=False)
class ScaleUnits:
    """Multiply the gradients of single output units by factors of at most 1.

    Attributes:
        factors: By position in the roster, ``(units,)`` each.
        name: What asks for it.
        norms: The units' gradient norms, ``(units,)`` for each of ``factors``, where they are
            known, so that nobody measures again.
    """

    factors: Mapping[int, Tensor]
    name: str
    norms: Mapping[int, Tensor] | None = None

    def __post_init__(self) -> None:
        _check_units("factors", self.factors)
        options.check_text(name=self.name)
        if self.norms is None:
            return
        _check_units("norms", self.norms)
        if sizes_of(self.norms) != sizes_of(self.factors):
            msg = (
                f"`norms` must have one number per factor, {sizes_of(self.factors)!r}, got "
                f"{sizes_of(self.norms)!r}. Leave them out, and they are measured."
            )
            raise ValueError(msg)


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
        options.check_text(name=self.name)
        options.check_positions("members", self.members)


@dataclass(frozen=True, eq=False)
class Skip:
    """Let this step never have happened, if a flag says so.

    Attributes:
        when: True or False, shape ``()``, where the gradients are. A number is no answer: NaN
            would count as True.
        why: What the flag means.
        value: The number that was judged, shape ``()``.
        limit: What it was judged against, shape ``()``.
    """

    when: Tensor
    why: str
    value: Tensor | None = None
    limit: Tensor | None = None

    def __post_init__(self) -> None:
        _check_tensor("when", self.when)
        if self.when.dtype != torch.bool:
            msg = f"`when` must be a tensor of one True or False, got {self.when!r}: compare first."
            raise TypeError(msg)
        options.check_text(why=self.why)
        for argument, number in (("value", self.value), ("limit", self.limit)):
            if number is not None:
                _check_tensor(argument, number)


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
        options.check_text(why=self.why)
        options.check_positions("groups", self.groups)


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
        options.check_text(why=self.why)


@dataclass(frozen=True)
class Stop:
    """End the training.

    Attributes:
        why: The reason.
        as_error: Whether to raise instead of stopping after this step.
    """

    why: str
    as_error: bool = False

    def __post_init__(self) -> None:
        options.check_text(why=self.why)
        options.check_bool(as_error=self.as_error)


Decision: TypeAlias = Scale | ScaleUnits | Clamp | Skip | LearningRate | GoBack | Stop
"""Everything a remedy may ask for."""


@runtime_checkable
class Remedy(Protocol):
    """Anything with this one method.

    A remedy that keeps something also has ``state_dict``, of JSON types, and ``load_state_dict``.
    One that does only some things says which in ``acts``, a set of ``"clip"``, ``"skip"``,
    ``"learning rate"``, ``"rollback"`` and ``"stop"``; without it, it may do everything. Each
    optimizer gets its own copy.

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
