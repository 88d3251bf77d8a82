"""A remedy for a part of the model.

In: any remedy, and globs of layers. Out: the same remedy, which sees nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from lightning_gradguard import options
from lightning_gradguard.episodes import Episode
from lightning_gradguard.errors import GradGuardError
from lightning_gradguard.remedies.base import (
    Clamp,
    Decision,
    LearningRate,
    Moment,
    Remedy,
    Scale,
    ScaleUnits,
)
from lightning_gradguard.remedies.fit import check_fit
from lightning_gradguard.remedies.gradients import Gradients, Member, Roster
from lightning_gradguard.remedies.traits import acts_of, acts_on_findings

__all__ = ["Only"]


class Only:
    """Let a remedy see and change only some layers.

    A learning rate belongs to a parameter group: groups that have any of the layers change.

    Args:
        layers: Globs of layers or parameters.
        remedy: What to do there.
        exclude: Globs to leave out of them.

    Raises:
        ValueError: There is no glob.
        TypeError: ``remedy`` is not one, or globs are no texts.

    Example:
        >>> from lightning_gradguard.remedies.clip_norm import ClipNorm
        >>> from lightning_gradguard.remedies.testing import moment_of
        >>> Only("layer", ClipNorm(1.0)).decide(moment_of([3.0, 4.0]))[0].factors.tolist()
        [0.2]
        >>> Only("other", ClipNorm(1.0)).decide(moment_of([3.0, 4.0]))
        []
    """

    def __init__(
        self,
        layers: Sequence[str] | str,
        remedy: Remedy,
        *,
        exclude: Sequence[str] | str | None = None,
    ) -> None:
        options.check_parts("remedy", [remedy], method="decide")
        if getattr(remedy, "needs_whole_optimizer", False):
            msg = (
                f"`remedy` must not be {type(remedy).__name__}, which looks at all layers at once."
            )
            raise TypeError(msg)
        self.layers = options.as_globs("layers", layers)
        self.exclude = options.as_globs("exclude", exclude)
        if not self.layers:
            msg = f"`layers` must name at least one glob, such as 'critic.*', got {layers!r}."
            raise ValueError(msg)
        self.remedy = remedy
        self._full: Roster | None = None
        self._chosen: list[int] = []
        self._part = Roster(())

    @property
    def acts(self) -> frozenset[str]:
        """What the remedy may do."""
        return acts_of(self.remedy)

    @property
    def acts_on_findings(self) -> bool:
        """Whether the remedy looks at what the monitor found."""
        return acts_on_findings(self.remedy)

    def matches(self, member: Member) -> bool:
        """Whether a parameter is among the layers."""
        names = (member.layer, member.name)
        return any(fnmatchcase(n, glob) for n in names for glob in self.layers) and not any(
            fnmatchcase(n, glob) for n in names for glob in self.exclude
        )

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Ask the remedy about its part."""
        full = moment.gradients.roster
        if self._full is not full:
            self._full = full
            self._chosen = [i for i, member in enumerate(full.members) if self.matches(member)]
            chosen = tuple(full.members[i] for i in self._chosen)
            self._part = Roster(chosen, num_groups=full.num_groups)
        if not self._chosen:
            return []
        part = replace(
            moment,
            gradients=self._take(moment.gradients),
            findings=[f for f in moment.findings if self._concerns(f.layers)],
            episodes=[e for e in moment.episodes if self._concerns(_layers(e))],
        )
        decisions = list(self.remedy.decide(part) or ())
        for decision in decisions:
            check_fit(decision, self._part)  # else -1 would be somebody else
        return [self._widen(decision, full) for decision in decisions]

    def _concerns(self, layers: Sequence[str]) -> bool:
        own = {member.layer for member in self._part.members}
        return not layers or not own.isdisjoint(layers)

    def _take(self, gradients: Gradients) -> Gradients:
        index = gradients.roster.index(self._chosen)
        tensors = [gradients.tensors[i] for i in self._chosen]
        return Gradients(self._part, tensors, gradients.squares[index], gradients.scale)

    def _widen(self, decision: Decision, full: Roster) -> Decision:
        """Say what was decided about a part in terms of the whole."""
        if isinstance(decision, Scale):
            return replace(decision, factors=self._spread(decision.factors, full))
        if isinstance(decision, ScaleUnits):
            factors = {self._chosen[i]: factor for i, factor in decision.factors.items()}
            known = decision.norms
            norms = None if known is None else {self._chosen[i]: n for i, n in known.items()}
            return replace(decision, factors=factors, norms=norms)
        if isinstance(decision, Clamp):
            mine = range(len(self._chosen)) if decision.members is None else decision.members
            return replace(decision, members=[self._chosen[i] for i in mine])
        if isinstance(decision, LearningRate):
            groups = sorted({member.group for member in self._part.members})
            return replace(decision, groups=groups)
        return decision

    def _spread(self, factors: Tensor, full: Roster) -> Tensor:
        whole = torch.ones(len(full.members), dtype=factors.dtype, device=factors.device)
        index = full.index(self._chosen)
        return whole.index_copy(0, index, factors.expand(len(self._chosen)).contiguous())

    def state_dict(self) -> dict[str, Any]:
        """Return what the remedy keeps."""
        save = getattr(self.remedy, "state_dict", None)
        return {} if save is None else {"remedy": save()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        load = getattr(self.remedy, "load_state_dict", None)
        if load is not None and "remedy" in state:
            load(state["remedy"])

    def check(self, rosters: Sequence[Roster]) -> None:
        """Raise unless the globs match anything.

        Raises:
            GradGuardError: They match no parameter of any optimizer.
        """
        if any(self.matches(member) for roster in rosters for member in roster.members):
            return
        known = ", ".join(repr(m.name) for roster in rosters for m in roster.members[:3])
        msg = f"No trained parameter matches {', '.join(self.layers)!r}. The first are {known}."
        raise GradGuardError(msg)


def _layers(episode: Episode) -> Sequence[str]:
    return episode.last.layers
