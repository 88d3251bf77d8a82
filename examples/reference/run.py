"""One reference run: what is trained, for how long, and what the monitor should say of it.

In:  nothing.
Out: `Run`, the record of which ``resnet.py``, ``batch_norm.py`` and ``recurrent.py`` each expose a
     tuple ``RUNS``. Whoever trains the runs compares what was found with what stands in them.
Never: trains anything, or knows a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule
    from torch.utils.data import DataLoader

Expected = Literal["healthy", "vanishing", "exploding", "nonfinite", "diverging", "not_learning"]


@dataclass(frozen=True)
class Run:
    """A small training whose outcome is known.

    Attributes:
        name: Unique name shown in tables, such as ``"resnet20"``.
        group: The file that the run comes from: ``"resnet"``, ``"batch_norm"`` or ``"recurrent"``.
        expected: Kinds of which at least one must be found; ``("healthy",)`` means that nothing
            at ``WARNING`` or above may be found.
        model: Builds the untrained model. Called after seeding, so it draws the initial weights.
        data: Maps a seed to the training and the held-out loader.
        max_steps: Length of the run in optimizer steps.
        score: Name of the logged validation metric that judges the run, such as
            ``"val_accuracy"``.
        target: Held-out score, in the unit of ``score``, that a healthy run must reach and a
            failing one must stay below.
        gradient_clip_val: Largest global gradient norm (L2) that the ``Trainer`` lets through;
            ``None`` means no clipping.
        why: One sentence: what fails, or what cures it, and why.
    """

    name: str
    group: str
    expected: tuple[Expected, ...]
    model: Callable[[], LightningModule]
    data: Callable[[int], tuple[DataLoader[Any], DataLoader[Any]]]
    max_steps: int
    score: str
    target: float
    gradient_clip_val: float | None = None
    why: str = ""
