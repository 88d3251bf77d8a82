"""Train a tiny model with ``GradientMonitor`` and print what it saw, as one line of JSON.

Run by the packaging tests in an environment of their own, with the name of the Lightning
root to train with: ``python smoke_training.py pytorch_lightning``.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NAN_STEP = 12


def main(root: str) -> dict[str, Any]:
    """Train two epochs of eight steps with one NaN loss, save, and resume for a third."""
    lightning: Any = import_module(root)
    loggers: Any = import_module(f"{root}.loggers")
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    import lightning_gradguard
    from lightning_gradguard import GradientMonitor

    for name in lightning_gradguard.__all__:
        getattr(lightning_gradguard, name)

    class Model(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(
                torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
            )

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            inputs, targets = batch
            loss = torch.nn.functional.mse_loss(self.net(inputs), targets)
            return loss * float("nan") if self.global_step == NAN_STEP else loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(64, 4), torch.randn(64, 1)), batch_size=8)

    def trainer(monitor: Any, folder: str, epochs: int) -> Any:
        return lightning.Trainer(
            accelerator="cpu",
            callbacks=[monitor],
            default_root_dir=folder,
            enable_model_summary=False,
            enable_progress_bar=False,
            log_every_n_steps=1,
            logger=loggers.TensorBoardLogger(folder),
            max_epochs=epochs,
        )

    with TemporaryDirectory() as folder:
        first = GradientMonitor()
        run = trainer(first, folder, epochs=2)
        run.fit(Model(), data)
        checkpoint = Path(folder) / "last.ckpt"
        run.save_checkpoint(checkpoint)
        second = GradientMonitor()
        trainer(second, folder, epochs=3).fit(Model(), data, ckpt_path=str(checkpoint))
        event_files = list(Path(folder).rglob("events.out.tfevents.*"))

    last_frames = [monitor.last_frame for monitor in (first, second)]
    return {
        "package": lightning_gradguard.__file__,
        "lightning": lightning.__version__,
        "torch": torch.__version__,
        "last_steps": [frame.step for frame in last_frames if frame is not None],
        "kinds": sorted({finding.kind for finding in first.findings}),
        "event_files": len(event_files),
    }


if __name__ == "__main__":
    result = main(sys.argv[1])
    sys.stdout.write(json.dumps(result) + "\n")
