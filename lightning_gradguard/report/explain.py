"""What a finding means and what it rests on, as text and as data.

In: a finding and its evidence, or a layer and what is known of it. Out: an `Explanation`. The long
form of the meanings, with figures, is ``docs/causes-signs-cures.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lightning_gradguard.evidence import Evidence
from lightning_gradguard.findings import Finding, headline

__all__ = ["Explanation", "explain", "explain_layer"]

_MEANING: Final = {
    "vanishing": (
        "Back-propagation multiplies one factor per layer or time step. Where these factors are "
        "below one in size the product shrinks geometrically, and the layers far from the loss "
        "hardly learn. What helps: skip connections together with normalisation, batch "
        "normalisation, ReLU with He initialisation; over time, gates with a high forget bias or "
        "an orthogonal recurrent matrix. What does not: clipping, a lower learning rate."
    ),
    "exploding": (
        "Back-propagation multiplies one factor per layer or time step. Where these factors are "
        "above one in size the product grows geometrically, and one step can destroy the "
        "weights. What helps: normalisation together with skip connections, an initialisation "
        "that suits the activation, a lower learning rate; over time, clipping by norm."
    ),
    "nonfinite": (
        "A NaN or an infinity reached the gradients. Once it is in the weights, every later step "
        "is NaN, and running statistics of batch normalisation stay poisoned even if the step is "
        "undone. Look at what came first: data, loss, or the backward pass of one layer."
    ),
    "dead": (
        "A unit that fires for no sample gets no gradient, and so never comes back. A large step "
        "or a large negative bias does it. What helps: a lower learning rate, normalisation before "
        "the activation. What does not: changing to leaky ReLU once they are dead."
    ),
    "diverging": (
        "The loss gets worse because of the steps that are taken. What helps nearly always: a "
        "lower learning rate; then warm-up, and a look at the batch where it began."
    ),
    "not_learning": (
        "Training goes nowhere: the steps are too small to matter, gradients do not reach the "
        "layers that matter, the optimizer holds other weights than the model uses, or something "
        "takes the steps back. The rule says which."
    ),
    "spike": (
        "One batch gave a gradient far beyond what is usual in this run. Once is nothing; again "
        "and again it is a few odd samples, or a rate at the edge."
    ),
    "unused_parameters": (
        "These parameters ask for gradients and never got any: no loss depends on them. They cost "
        "memory, and a distributed run waits for them."
    ),
    "clip_dominated": (
        "When nearly every step is clipped, the clip value takes the place of the learning rate, "
        "and the gradient's size no longer says anything."
    ),
    "scheduler_drift": (
        "The schedule was stepped although the optimizer was not, so the rate is further along "
        "than the training."
    ),
    "amp_overflow": (
        "In float16 a gradient scaler tries large factors and takes them back when they overflow. "
        "The step was not made. Now and then this is normal life, not a fault."
    ),
}

_MOST_ROWS: Final = 12
_BAR: Final = 24


@dataclass(frozen=True)
class Explanation:
    """Why something was said; ``str()`` of it is the text.

    Attributes:
        text: For people, several lines.
        finding: What is explained; None for a layer.
        rule: Which rule held; may be empty.
        evidence: The numbers behind it; None when they are no longer kept.
        notes: What is special about the layers concerned, by layer.
    """

    text: str
    finding: Finding | None = None
    rule: str = ""
    evidence: Evidence | None = None
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as plain JSON types."""
        return {
            "text": self.text,
            "finding": None if self.finding is None else self.finding.to_dict(),
            "rule": self.rule,
            "evidence": None if self.evidence is None else self.evidence.to_dict(),
            "notes": {layer: list(notes) for layer, notes in self.notes.items()},
        }


def explain(
    finding: Finding,
    evidence: Evidence | None = None,
    notes: Mapping[str, tuple[str, ...]] | None = None,
) -> Explanation:
    """Explain a finding: what was seen, what it means, what it rests on, what to do.

    Args:
        finding: What was said.
        evidence: What was kept of it.
        notes: What is special about layers.

    Example:
        >>> from lightning_gradguard.findings import Severity
        >>> mine = Finding(kind="my_kind", severity=Severity.INFO, step=7, message="a large step",
        ...                advice="look at the batch")
        >>> print(explain(mine))
        step 7  INFO my_kind  whole model: a large step.
        Here: look at the batch
    """
    mine = {n: notes[n] for n in finding.layers if notes and notes.get(n)}
    lines = [headline(finding)]
    if finding.rule and math.isfinite(finding.limit) and finding.limit != 0.0:
        unit = f" {finding.unit}" if finding.unit else ""
        against = f"{finding.value:.3g} against a limit of {finding.limit:.3g}{unit}"
        lines.append(f"Rule: {finding.rule}; {against}.")
    if finding.kind in _MEANING:
        lines.append(_MEANING[finding.kind])
    if evidence is not None:
        lines += [*_profile(evidence, finding.layers), *_history(evidence)]
    lines += [f"{layer}: {note}." for layer, all_notes in mine.items() for note in all_notes]
    if notes and (left := _num_left_out(notes)):
        lines.append(f"{left} layers are left out where depth is judged; ask for one by name.")
    if finding.advice:
        lines.append(f"Here: {finding.advice}")
    return Explanation("\n".join(lines), finding, finding.rule, evidence, mine)


def explain_layer(layer: str, evidence: Evidence, notes: tuple[str, ...] | None) -> Explanation:
    """Say how a layer stands, and why it is left out if it is.

    Args:
        layer: Its name.
        evidence: The latest steps as seen from it.
        notes: What is special about it; None when no such layer is known.

    Raises:
        ValueError: There is no such layer.
    """
    if notes is None:
        msg = (
            f"`explain` needs a finding or the name of a layer, got {layer!r}, which is neither. "
            "Layers are known once training has begun."
        )
        raise ValueError(msg)
    lines = [f"{layer}: {note}." for note in notes] or [f"{layer}: judged like any weight layer."]
    lines += _history(evidence)
    return Explanation("\n".join(lines), evidence=evidence, notes={layer: notes})


def _num_left_out(notes: Mapping[str, tuple[str, ...]]) -> int:
    return sum(any(n.startswith("left out") for n in mine) for mine in notes.values())


def _profile(evidence: Evidence, concerned: Sequence[str]) -> Iterator[str]:
    """Draw gradient over weight by layer, from the input to the loss."""
    known = [
        (layer, math.log10(ratio)) if ratio else (layer, None)
        for layer, ratio in zip(evidence.layers, evidence.grad_ratio, strict=True)
    ]
    decades = [x for _, x in known if x is not None]
    if len(known) < 3 or not decades:
        return
    low, high = min(decades), max(decades)
    yield "Gradient over weight, from the input to the loss (* concerned):"
    width = max(len(layer) for layer, _ in known)
    for layer, x in _thinned(known):
        mark = "*" if layer in concerned else " "
        share = 0.0 if x is None else (x - low) / max(high - low, 1e-9)
        size = "0" if x is None else f"{10.0**x:.0e}"
        yield f"  {mark} {layer:{width}}  {size:>6}  {'#' * round(1 + share * (_BAR - 1))}"


def _thinned(rows: Sequence[tuple[str, float | None]]) -> Iterator[tuple[str, float | None]]:
    """Yield about a dozen rows, the first and the last among them."""
    last = len(rows) - 1
    count = min(len(rows), _MOST_ROWS)
    for place in sorted({round(i * last / max(1, count - 1)) for i in range(count)}):
        yield rows[place]


def _history(evidence: Evidence) -> Iterator[str]:
    """Say how the numbers got where they are."""
    histories = (
        (f"gradient over weight of {evidence.layer}", evidence.history_grad_ratio),
        (f"update over weight of {evidence.layer}", evidence.history_update_ratio),
        ("global gradient norm", evidence.global_grad_norm),
        ("loss", evidence.loss),
    )
    for name, numbers in histories:
        known = [(s, x) for s, x in zip(evidence.steps, numbers, strict=True) if x is not None]
        if known:
            said = ", ".join(f"{x:.3g} (step {step})" for step, x in _points(known))
            yield f"{name[0].upper()}{name[1:]}: {said}."


def _points(known: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the first, some between and the last."""
    last = len(known) - 1
    return [known[place] for place in sorted({round(last * i / 4) for i in range(5)})]
