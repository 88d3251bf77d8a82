"""A look inside at one training step: hidden states, activations, gradients of outputs, together.

In: a model and the moments of a step. Out: numbers on the device, named as `assemble` expects them.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping

from torch import Tensor, nn

from lightning_gradguard.inside.activations import Activations, Site
from lightning_gradguard.inside.hidden import HiddenStates
from lightning_gradguard.inside.outputs import Outputs
from lightning_gradguard.inside.safely import Failures

__all__ = ["Looks"]


class Looks:
    """Look inside the steps that are asked for.

    Args:
        model: Looked through once.
        watched: Parameters in scope.

    Cost:
        Nothing while not armed; about half a step on an armed one, more with recurrent layers.
    """

    def __init__(self, model: nn.Module, watched: Iterable[nn.Parameter]) -> None:
        self._failures, self._is_armed = Failures(), False
        self.hidden = HiddenStates(model, watched, failures=self._failures)
        self.activations = Activations(model, self._failures)
        self.outputs = Outputs(model, self._failures)

    @property
    def failure(self) -> Exception | None:
        """What went wrong in looking; then no step is looked inside any more."""
        return self._failures.first

    @property
    def unchecked(self) -> list[str]:
        """What could not be looked at, each with its reason."""
        found = [f"hidden states of {n} ({why})" for n, why in self.hidden.unchecked.items()]
        if self.failure is not None:
            found.append(f"the inside of steps ({self.failure!r})")
        return found

    def arm(self) -> None:
        """Watch from the next forward pass on."""
        if self.failure is not None:
            return
        self._is_armed = True
        for part in (self.activations, self.outputs, self.hidden):
            part.arm()

    def end_forward(self) -> None:
        """Take note that the backward pass begins, in which checkpointed modules run again."""
        for part in (self.activations, self.outputs, self.hidden):
            part.disarm()

    def forget(self) -> None:
        """Leave the model as it was found, and let go of what has been seen."""
        if not self._is_armed:
            return
        self._is_armed = False
        for part in (self.activations, self.outputs, self.hidden):
            part.forget()

    def take(
        self, modules: Container[str], scale: Tensor | None, factor: float
    ) -> dict[str, Tensor]:
        """Return what was seen since armed.

        Args:
            modules: Names of those that belong to the optimizer.
            scale: What gradients are multiplied by, shape ``()``; None is 1.
            factor: What they are to be multiplied by.
        """
        found: dict[str, Tensor] = {}
        if not self._is_armed:
            return found
        self._failures.caught(self._collect)(found, modules, scale, factor)
        if self.failure is not None:
            self.forget()
            return {}
        return found

    def _collect(
        self,
        found: dict[str, Tensor],
        modules: Container[str],
        scale: Tensor | None,
        factor: float,
    ) -> None:
        square = factor * factor if scale is None else factor * factor / scale.square()
        found.update({f"out/{name}": square * s for name, s in self.outputs.take(modules).items()})
        for name, rows in self.hidden.take(modules).items():
            found[f"hidden/{name}"] = rows * _per_row(rows, square)
        sites = {**self.activations.take(modules), **self.hidden.take_gates()}
        for site, numbers in sites.items():
            found.update(_named(site, numbers))


def _per_row(rows: Tensor, square: Tensor | float) -> Tensor:
    """Return what to multiply time steps and squares by."""
    factors = rows.new_ones(len(rows), 1)
    factors[1:] = square
    return factors


def _named(site: Site, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"act/{what}/{json.dumps(site)}": tensor for what, tensor in numbers.items()}
