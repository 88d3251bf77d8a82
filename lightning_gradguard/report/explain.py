"""What a finding means, in a paragraph.

In: a finding. Out: text: what it is, why it happens, what helps and what does not. The long form
with figures is ``docs/causes-signs-cures.md``.
"""

from __future__ import annotations

from typing import Final

from lightning_gradguard.findings import Finding, headline

__all__ = ["explain"]

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
    "diverging": (
        "The loss runs away while the weights take large steps. What helps nearly always: a "
        "lower learning rate; then warm-up, and a look at the batch where it began."
    ),
    "not_learning": (
        "The loss does not move although steps are taken, or the steps are too small to matter. "
        "Look at the learning rate and its schedule, at the targets, and at whether gradients "
        "reach the layers that matter."
    ),
    "amp_overflow": (
        "In float16 a gradient scaler tries large factors and takes them back when they overflow. "
        "The step was not made. Now and then this is normal life, not a fault."
    ),
}


def explain(finding: Finding) -> str:
    """Return the finding, its meaning and its advice, a line each.

    Example:
        >>> from lightning_gradguard.findings import Severity
        >>> spike = Finding(kind="spike", severity=Severity.INFO, step=7, message="a large step",
        ...                 advice="look at the batch")
        >>> print(explain(spike))
        step 7  INFO spike  whole model: a large step.
        Here: look at the batch
    """
    lines = [headline(finding)]
    if finding.kind in _MEANING:
        lines.append(_MEANING[finding.kind])
    if finding.advice:
        lines.append(f"Here: {finding.advice}")
    return "\n".join(lines)
