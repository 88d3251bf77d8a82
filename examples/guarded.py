"""The guard in a few lines: one batch of NaN, left out.

In: nothing. Out: what the guard did, and that the model is whole.
"""

from __future__ import annotations

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradguard import GradientGuard

__all__ = ["Net", "fit", "main"]


class Net(LightningModule):
    """A network with batch norm, whose running statistics a NaN would break for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross entropy."""
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def fit(guard: GradientGuard | None) -> Net:
    """Train on 40 batches, of which the one of step 12 has a NaN."""
    seed_everything(0, verbose=False)
    x = torch.randn(640, 4)
    y = (x[:, 0] > 0).long()
    x[200, 2] = torch.nan
    model = Net()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[] if guard is None else [guard],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=16))
    return model


def main() -> None:
    """Train without a guard and with one."""
    guard = GradientGuard(on_nonfinite="skip", sinks=[])
    for name, model in {"without": fit(None), "with": fit(guard)}.items():
        broken = [key for key, value in model.state_dict().items() if not value.isfinite().all()]
        print(f"{name} the guard, not finite: {', '.join(broken) or 'nothing'}")
    for action in guard.actions:
        print(f"step {action.step}: {action.what}, {action.why}")


if __name__ == "__main__":
    main()
