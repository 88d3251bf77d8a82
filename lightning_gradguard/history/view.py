"""What a browser draws of a run: the same for the TensorBoard tab and the HTML report.

In: a `Run`. Out: JSON, and `pack`ed arrays. Imports only numpy and the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_gradguard.history.curves import histogram, lines, over_time, scalars
from lightning_gradguard.history.picture import heatmap
from lightning_gradguard.history.wire import pack, plain, unpack

if TYPE_CHECKING:
    from lightning_gradguard.history import Run

__all__ = [
    "heatmap",
    "histogram",
    "lines",
    "over_time",
    "overview",
    "pack",
    "plain",
    "scalars",
    "unpack",
]


def overview(run: Run) -> dict[str, Any]:
    """Say what a run holds: layers and steps of each optimizer, findings, actions, how it ended.

    Returns:
        JSON types. Layer names are as they were given: escape them where they are shown. Actions
        of one kind that lie close together are one, with ``times`` and ``last_step``.
    """
    parts = []
    for index in run.optimizers:
        steps = run.steps(index)
        ends = [int(steps[0]), int(steps[-1])] if len(steps) else None
        parts.append(
            {"index": index, "layers": run.layers(index), "steps": len(steps), "range": ends}
        )
    found: dict[str, Any] = plain(
        {
            "name": run.name,
            "meta": run.meta,
            "optimizers": parts,
            "statistics": run.statistics,
            "scalars": run.scalars,
            "findings": [finding.to_dict() for finding in run.findings],
            "actions": [
                {**first.to_dict(), "times": times, "last_step": last}
                for first, times, last in run.action_bunches()
            ],
        }
    )
    return found
