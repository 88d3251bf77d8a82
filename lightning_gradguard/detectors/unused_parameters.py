"""Layers that an optimizer has but no loss reaches: a notice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_gradguard.findings import Finding, Severity
from lightning_gradguard.frame import Frame

__all__ = ["UnusedParameters"]


class UnusedParameters:
    """Notice layers that never received a gradient.

    Reports ``unused_parameters``, a notice, once ``warmup_steps`` steps have passed in which none
    of a layer's parameters had a gradient (None, not zero).

    Is silent about frozen parameters, which are not watched, and as soon as a layer was reached.

    Costs one look at a vector per step, until all layers were reached.

    Args:
        warmup_steps: Observed steps in which a layer may be left out.

    State:
        Which layers were reached.

    Example:
        >>> UnusedParameters().patience_steps_by_kind
        {'unused_parameters': 1}
    """

    def __init__(self, *, warmup_steps: int = 50) -> None:
        self.patience_steps_by_kind = {"unused_parameters": 1}
        self._warmup = warmup_steps
        self._seen = 0
        self._layers: tuple[str, ...] = ()
        self._missing: set[str] = set()

    def update(self, frame: Frame) -> Sequence[Finding]:
        """Return at most one notice."""
        if frame.layers != self._layers:
            roles = zip(frame.layers, frame.roles or ("",) * len(frame.layers), strict=True)
            self._missing = {layer for layer, role in roles if role != "foreign"}
            self._layers, self._seen = frame.layers, 0
        self._seen += 1
        if self._missing:
            reached = np.flatnonzero(~np.isnan(frame.grad_norm))
            self._missing.difference_update(frame.layers[i] for i in reached)
        is_all = len(self._missing) == len(frame.layers)  # which is for `NotLearning`
        if not self._missing or is_all or self._seen <= self._warmup:
            return ()
        layers = tuple(layer for layer in frame.layers if layer in self._missing)
        return [
            Finding(
                kind="unused_parameters",
                severity=Severity.INFO,
                step=frame.step,
                epoch=frame.epoch,
                layers=layers,
                value=len(layers),
                limit=0.0,
                unit="layers",
                message=f"no gradient in {self._seen} steps",
                advice="if that is meant, freeze them with `requires_grad_(False)`; else look for "
                "a `detach()` or a part of the model that is not called.",
            )
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, as JSON types."""
        return {"seen": self._seen, "layers": list(self._layers), "missing": sorted(self._missing)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._seen, self._layers = state["seen"], tuple(state["layers"])
        self._missing = set(state["missing"])
