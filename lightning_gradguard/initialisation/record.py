"""What the initialisation check measured, as a record.

In: a `Signal` per initialisation. Out: which of them keep it, and whether that is a fault. Knows no
torch; sentences are made in `words`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lightning_gradguard.initialisation.signal import LayerSignal, Signal, Status

__all__ = ["MARGIN_DECADES", "Preflight"]

MARGIN_DECADES: Final = 1.0
"""Decades by which an initialisation may be worse than the best one, and is still named."""


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What the initialisation check measured. ``print`` it, or see ``verdict``.

    Attributes:
        given: With the weights as they are.
        alternatives: With the weight matrices drawn by Xavier's rule, He's, and orthogonal; all
            else, biases included, as given.
        ending: Where the gradient came from: the model's ``"training_step"``; the ``"loss"`` that
            was given; a loss that the ``"model"`` itself returned; or ``"random"``, a random
            gradient of unit variance at the output.
        seed: What random numbers came from.
        notes: What is to be known beside the numbers, one sentence each.
        zero_layers: Layers with weights that are all zero.
    """

    given: Signal
    alternatives: tuple[Signal, ...] = ()
    ending: str = "random"
    seed: int = 0
    notes: tuple[str, ...] = ()
    zero_layers: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[LayerSignal, ...]:
        """The layers with a weight matrix as they are, in the order of first calls."""
        return self.given.layers

    @property
    def forward_ratio(self) -> float:
        """Forward signal at the last layer over that at the first."""
        return self.given.forward_ratio

    @property
    def backward_ratio(self) -> float:
        """Gradient at the first layer over that at the last."""
        return self.given.backward_ratio

    @property
    def forward_decades_per_layer(self) -> float:
        """What a layer adds to the forward signal; below 0 it shrinks."""
        return self.given.forward_decades_per_layer

    @property
    def backward_decades_per_layer(self) -> float:
        """What a layer adds to the gradient on its way to the input; below 0 it shrinks."""
        return self.given.backward_decades_per_layer

    @property
    def status(self) -> Status:
        """Whether the signal is kept, in one word; ``"unknown"`` where nothing can be said."""
        is_stopped = bool(self.zero_layers) and self.given.status == "lost"
        return "unknown" if is_stopped else self.given.status

    @property
    def is_faulty(self) -> bool:
        """Whether the signal shrinks, grows, gets lost or is not finite."""
        return self.status not in {"kept", "unknown"}

    @property
    def keepers(self) -> tuple[Signal, ...]:
        """The alternatives that were measured to keep the signal, about as well as the best."""
        kept = [signal for signal in self.alternatives if signal.status == "kept"]
        ranked = sorted(kept, key=lambda signal: signal.worst_decades)
        limit = ranked[0].worst_decades + MARGIN_DECADES if ranked else 0.0
        return tuple(signal for signal in ranked if signal.worst_decades <= limit)

    @property
    def verdict(self) -> str:
        """What was found, in a sentence."""
        # Imported late: the words are made from this record, not the other way round.
        from lightning_gradguard.initialisation.words import verdict

        return verdict(self)

    def __str__(self) -> str:
        """Return verdict and numbers as plain text, at most 80 columns wide."""
        from lightning_gradguard.initialisation.words import lines

        return "\n".join(lines(self))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; None where a number is NaN or infinite."""
        return {
            "verdict": self.verdict,
            "is_faulty": self.is_faulty,
            **self.given.to_dict(),
            "status": self.status,
            "alternatives": [signal.to_dict() for signal in self.alternatives],
            "ending": self.ending,
            "seed": self.seed,
            "notes": list(self.notes),
            "zero_layers": list(self.zero_layers),
        }
