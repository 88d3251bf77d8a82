"""What a finding rests on, kept when it is opened.

In: frames as they come. Out: `Evidence`: the profile over depth at that step, and how the layer
concerned, the global norm and the loss got there. Memory is bounded: the latest steps, and the
evidence of the latest findings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_gradguard.findings import Finding
from lightning_gradguard.frame import Frame
from lightning_gradguard.roles import LEFT_OUT

__all__ = ["Evidence", "Recall"]

_STEPS: Final = 200
_MOST_KEPT: Final = 20

Numbers = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Numbers behind a finding; None where something was not measured or not finite.

    Attributes:
        layer: Whose history this is; empty when the finding is about the whole model.
        layers: Weight layers in depth order, those that depth is judged by.
        grad_ratio: Gradient norm over weight norm of each at the last step.
        update_ratio: Update norm over weight norm of each at the last step.
        steps: Optimizer steps looked back on, the last one being that of the finding.
        history_grad_ratio: ``grad_ratio`` of ``layer`` at these steps.
        history_update_ratio: ``update_ratio`` of ``layer`` at these steps.
        global_grad_norm: At these steps.
        loss: At these steps.
    """

    layer: str
    layers: tuple[str, ...]
    grad_ratio: Numbers
    update_ratio: Numbers
    steps: tuple[int, ...]
    history_grad_ratio: Numbers
    history_update_ratio: Numbers
    global_grad_norm: Numbers
    loss: Numbers

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence as plain JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evidence:
        """Rebuild evidence from `to_dict`; unknown keys are ignored."""
        known: dict[str, Any] = {
            name: tuple(data[name]) if isinstance(data[name], list) else data[name]
            for name in cls.__dataclass_fields__
        }
        return cls(**known)


@dataclass(frozen=True, eq=False)
class _Moment:
    """One step, in single precision: this is for eyes."""

    step: int
    layers: tuple[str, ...]
    roles: tuple[str, ...]
    grad_ratio: npt.NDArray[np.float32]
    update_ratio: npt.NDArray[np.float32]
    global_grad_norm: float
    loss: float | None


class Recall:
    """Remember the latest steps of one optimizer.

    Cost:
        Two short copies per step; 1.6 kB per layer in all.
    """

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque(maxlen=_STEPS)
        self._evidence: dict[int, Evidence] = {}

    def remember(self, frame: Frame) -> None:
        """Take in a step."""
        self._moments.append(
            _Moment(
                frame.step,
                frame.layers,
                frame.roles,
                frame.weight_grad_ratio.astype(np.float32),
                frame.weight_update_ratio.astype(np.float32),
                frame.global_grad_norm,
                frame.loss,
            )
        )

    def keep(self, finding: Finding) -> None:
        """Keep what the finding rests on, under its episode's number."""
        layer = finding.layers[0] if finding.layers else ""
        self._evidence[finding.episode_id] = self.look_back(layer)
        while len(self._evidence) > _MOST_KEPT:
            del self._evidence[next(iter(self._evidence))]

    def evidence(self, episode_id: int) -> Evidence | None:
        """Return what was kept for an episode, or None."""
        return self._evidence.get(episode_id)

    def look_back(self, layer: str) -> Evidence:
        """Return the latest steps as seen from a layer."""
        moments = list(self._moments)
        now = moments[-1] if moments else None
        shown = [] if now is None else _shown(now)
        return Evidence(
            layer=layer,
            layers=tuple(now.layers[i] for i in shown) if now else (),
            grad_ratio=_plain(now.grad_ratio[shown].tolist()) if now else (),
            update_ratio=_plain(now.update_ratio[shown].tolist()) if now else (),
            steps=tuple(moment.step for moment in moments),
            history_grad_ratio=_plain([_at(m, m.grad_ratio, layer) for m in moments]),
            history_update_ratio=_plain([_at(m, m.update_ratio, layer) for m in moments]),
            global_grad_norm=_plain([m.global_grad_norm for m in moments]),
            loss=_plain([m.loss for m in moments]),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what was kept for findings, as JSON types; the latest steps come anew."""
        return {str(number): kept.to_dict() for number, kept in self._evidence.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._evidence = {int(n): Evidence.from_dict(kept) for n, kept in state.items()}


def _shown(moment: _Moment) -> list[int]:
    roles = moment.roles or ("weights",) * len(moment.layers)
    known = ~np.isnan(moment.grad_ratio)
    return [i for i, role in enumerate(roles) if role not in LEFT_OUT and known[i]]


def _at(moment: _Moment, numbers: npt.NDArray[np.float32], layer: str) -> float | None:
    try:
        return float(numbers[moment.layers.index(layer)])
    except ValueError:
        return None


def _plain(numbers: list[float | None]) -> Numbers:
    return tuple(None if x is None or not np.isfinite(x) else float(x) for x in numbers)
