"""Your own remedy: a learning rate that is cut when the loss has stopped falling.

In: nothing. Out: a few lines, which say what was done. ``docs/own-remedy.md`` explains each part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradguard import GradientGuard
from lightning_gradguard.remedies import Decision, LearningRate, Moment

__all__ = ["CutOnPlateau", "NoisyLine", "guarded_fit", "main"]


class CutOnPlateau:
    """Cut the learning rate whenever the mean loss of a window is no lower than that of the last.

    Args:
        window: Optimizer steps over which losses are averaged.
        factor: What each cut multiplies the rate by.
        floor: Smallest product of all cuts.
    """

    acts = frozenset({"learning rate"})  # and nothing else, so no copies of buffers are made for it
    acts_on_findings = True  # frames come from the monitor, and ranks may differ in them

    def __init__(self, window: int = 25, *, factor: float = 0.3, floor: float = 0.01) -> None:
        self.window, self.factor, self.floor = window, factor, floor
        self._losses: list[float] = []
        self._last = float("inf")
        self._now = 1.0

    def decide(self, moment: Moment) -> Sequence[Decision]:
        """Learn the losses that have arrived, then say what the rate is multiplied by."""
        # A frame is a step that is over, so its loss is a number already and nobody waits for it.
        self._losses += [frame.loss for frame in moment.frames if frame.loss is not None]
        why = self._judge() if len(self._losses) >= self.window else ""
        return [LearningRate(self._now, why)] if self._now < 1.0 else ()

    def _judge(self) -> str:
        mean, last = sum(self._losses) / len(self._losses), self._last
        self._losses, self._last = [], mean
        if mean < last or self._now <= self.floor:
            return ""
        self._now = max(self.floor, self._now * self.factor)
        return f"mean loss {mean:.2g} after {last:.2g}"

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON types."""
        return {"losses": self._losses, "last": self._last, "now": self._now}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._losses, self._last, self._now = list(state["losses"]), state["last"], state["now"]


class NoisyLine(LightningModule):
    """A line through noisy points, with a rate at which the weights never settle."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(8, 1)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean squared error."""
        x, y = batch
        return nn.functional.mse_loss(self.line(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.15)


def guarded_fit(*, dry_run: bool) -> tuple[float, GradientGuard]:
    """Train, and return how far the weights are from the truth, and the guard."""
    seed_everything(0, verbose=False)
    x, truth = torch.randn(3200, 8), torch.arange(8.0)
    y = x @ truth[:, None] + torch.randn(3200, 1)
    guard = GradientGuard(remedies=[CutOnPlateau()], dry_run=dry_run, sinks=[])
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        callbacks=[guard],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = NoisyLine()
    trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=16))
    return float((model.line.weight.detach() - truth).norm()), guard


def main() -> None:
    """Train with the remedy, and once more without its help."""
    error, guard = guarded_fit(dry_run=False)
    error_without, shadow = guarded_fit(dry_run=True)
    for action in guard.actions:
        print(f"step {action.step}: {action.what}, {action.why}")
    print(f"distance from the truth: {error:.3f}, and {error_without:.3f} without the remedy")
    print(f"in the dry run it would have cut {len(shadow.actions)} times")


if __name__ == "__main__":
    main()
