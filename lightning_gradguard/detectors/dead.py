"""Units that no longer fire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_gradguard.detectors.idle import Idle
from lightning_gradguard.detectors.judged_units import advice_on_dead, unit_phrase
from lightning_gradguard.detectors.progress import LossProgress
from lightning_gradguard.detectors.silence import Silence
from lightning_gradguard.detectors.unfired import Unfired
from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame, Mask

__all__ = ["Dead"]

_SETTLED = 0.95
"""A set of dead units no longer shrinks: units that fire now and then keep leaving it."""


class Dead:
    """Find layers most of whose units are dead.

    Reports ``dead`` when the gradient rows of ``limit_share`` of a layer's units were exactly zero
    in ``patience_samples`` samples in a row (one sample is taken in five steps), and hardly any
    unit has left that set in the latter half of them.

    Also when steps are looked inside and `Unfired` holds.

    While the loss has never moved ``mild_share`` is enough, and while it is worse than it was, if
    so many have died since the first sample.

    Is silent about units that fire rarely, which leave the set again; about output layers, whose
    units are answers; about an expert that is idle while its siblings work; about embeddings;
    and about steps at which nothing at all got a gradient, as when a hinge loss is fulfilled. A
    layer that gets nothing although none of its units is at fault is for `Vanishing`.

    Costs one count per unit on sampled steps.

    Args:
        limit_share: Share of a layer's units that counts, in ``(0, 1]``. Healthy ReLU networks
            live with a half; detection benchmark.
        mild_share: Share that counts while the loss has not moved or is worse than it was.
        patience_samples: Samples in a row without any gradient.
        min_units: Layers with fewer units count only when all of them are dead.

    State:
        For each unit that is silent now, for how many samples; how many there were; and which
        layers come and go.

    Example:
        >>> Dead(limit_share=0.9).patience_steps_by_kind
        {'dead': 1}
    """

    def __init__(
        self,
        *,
        limit_share: float = 0.95,
        mild_share: float = 0.6,
        patience_samples: int = 4,
        min_units: int = 16,
    ) -> None:
        if not 0.0 < limit_share <= 1.0:
            msg = f"`limit_share` must be in (0, 1], got {limit_share!r}."
            raise ValueError(msg)
        if not 0.0 < mild_share <= 1.0:
            msg = f"`mild_share` must be in (0, 1], got {mild_share!r}."
            raise ValueError(msg)
        if patience_samples < 2:
            msg = f"`patience_samples` must be at least 2, got {patience_samples!r}."
            raise ValueError(msg)
        self.patience_steps_by_kind = {"dead": 1}
        self._limit, self._patience, self._min_units = limit_share, patience_samples, min_units
        self._mild = min(mild_share, limit_share)
        self._progress = LossProgress()
        self._silence = Silence()
        self._idle = Idle()
        self._unfired = Unfired(limit_share=limit_share, min_units=min_units)
        self._samples = 0
        self._found: Finding | None = None

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one finding, of the layer nearest to the loss that is dead."""
        self._progress.update(frame.loss)
        unfired = self._unfired.update(frame)
        masks = {layer: mask for layer, mask in frame.silent_units.items() if mask.size}
        if frame.has_nonfinite or not frame.stepped:
            return ()
        if masks and frame.global_grad_norm > 0.0:
            self._samples += 1
            self._silence.update(masks)
            self._idle.update(masks, self._silence.silent_now(tuple(masks)))
            self._found = self._judge(frame, tuple(masks))
        found = unfired if self._found is None else self._found
        return () if found is None else [replace(found, step=frame.step, epoch=frame.epoch)]

    def _judge(self, frame: Frame, names: tuple[str, ...]) -> Finding | None:
        too_many = self._too_many(names)
        if not too_many.any():
            return None
        shares = self._dead_shares(frame, names)
        suspects = {name for name, is_one in zip(names, too_many, strict=True) if is_one}
        # The last layer's units are answers.
        order = [layer for layer in frame.layers if layer in shares][:-1]
        found = [layer for layer in order if layer in suspects and shares[layer] > 0.0]
        idle = self._idle.among(frame, {layer for layer in found if shares[layer] == 1.0})
        found = [layer for layer in found if layer not in idle]
        if not found:
            return None
        # What lies before a layer that is wholly dead gets nothing, and is not to blame.
        worst = next((layer for layer in reversed(found) if shares[layer] == 1.0), None)
        if worst is not None:
            found = found[found.index(worst) :]
        else:
            worst = max(found, key=shares.__getitem__)
        return self._finding(frame, found, worst, shares[worst])

    def _too_many(self, layers: Sequence[str]) -> Mask:
        """Return in which layers as many units are silent as matter, as the loss stands."""
        size = self._silence.sizes(layers)
        dead = self._silence.longer_than(self._patience, layers)
        if self._progress.never_moved(steps=40):
            return dead >= self._mild * size
        too_many = dead >= self._limit * size
        if self._progress.is_worse(excess=0.5):
            # What was silent from the first is not what made it worse.
            died = dead - self._silence.longer_than(self._samples, layers)
            too_many |= died >= self._mild * size
        return too_many

    def _dead_shares(self, frame: Frame, layers: Sequence[str]) -> dict[str, float]:
        """Return the share of each layer's units that are dead, 0 where that cannot be said."""
        size = self._silence.sizes(layers)
        dead = self._silence.longer_than(self._patience, layers)
        half = self._silence.longer_than((self._patience + 1) // 2, layers)
        is_settled = dead >= _SETTLED * half
        # A share of a handful says little, all of them does.
        is_large = (size >= self._min_units) | (dead == size)
        # The bias of a dead unit gets nothing either; else it is only cut off from its inputs.
        norms = dict(zip(frame.layers, frame.grad_norm.tolist(), strict=True))
        learns = np.array(
            [norms[layer] > 0.0 or norms.get(_bias(layer), 0.0) > 0.0 for layer in layers]
        )
        is_cut_off = (dead == size) & learns
        share = np.where(is_settled & is_large & ~is_cut_off, dead / size, 0.0)
        return dict(zip(layers, share.tolist(), strict=True))

    def _finding(self, frame: Frame, layers: Sequence[str], worst: str, share: float) -> Finding:
        silent = self._silence.of(worst)
        at_birth = int((silent == self._samples).sum()) > 0.5 * share * silent.size
        born = " since the first step" if at_birth else ""
        return Finding(
            kind="dead",
            severity=Severity.ERROR if share >= 0.9 else Severity.WARNING,
            step=frame.step,
            epoch=frame.epoch,
            layers=tuple(layers),
            value=share,
            limit=self._limit if share >= self._limit else self._mild,
            unit="share of units",
            message=f"{unit_phrase(silent >= self._patience)} of {worst} have had no "
            f"gradient{born or ', but had before,'} in {self._patience} samples in a row",
            advice=advice_on_dead(at_birth=bool(born)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {
            "silence": self._silence.state_dict(),
            "idle": self._idle.state_dict(),
            "unfired": self._unfired.state_dict(),
            "samples": self._samples,
            "progress": self._progress.state_dict(),
            "found": None if self._found is None else self._found.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._progress.load_state_dict(state["progress"])
        self._samples = state["samples"]
        self._silence.load_state_dict(state["silence"])
        self._idle.load_state_dict(state["idle"])
        self._unfired.load_state_dict(state["unfired"])
        self._found = None if state["found"] is None else Finding.from_dict(state["found"])


def _bias(layer: str) -> str:
    """Return the row of a weight's bias where each parameter has a row of its own."""
    return f"{layer.removesuffix('weight')}bias" if layer.endswith("weight") else layer
