"""An optimizer whose weights nobody uses: no gradient ever comes, and that is said."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gradguard import GradientMonitor, Probe
from lightning_gradguard.assemble import StepContext


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


class Rebuilt(pl.LightningModule):
    """Gets new layers after the optimizer was made, as when a checkpoint is patched in."""

    def __init__(self, *, is_rebuilt: bool) -> None:
        super().__init__()
        self.net, self.is_rebuilt = net(), is_rebuilt

    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.net.parameters())
        if self.is_rebuilt:
            self.net = net()
        return optimizer


def monitored(tmp_path, model: pl.LightningModule, **options) -> GradientMonitor:
    monitor = GradientMonitor(**options)
    trainer = pl.Trainer(
        max_epochs=1,
        callbacks=[monitor],
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(torch.randn(60, 4), batch_size=1))
    return monitor


def test_stale_weights_are_named_as_such(tmp_path) -> None:
    (finding,) = monitored(tmp_path, Rebuilt(is_rebuilt=True)).alarms
    assert (finding.kind, finding.rule) == ("not_learning", "stale")
    assert finding.layers == ("(not in the model)",)
    assert finding.since_step < 30
    assert "after the optimizer was made" in finding.advice


def test_weights_that_learn_are_no_matter(tmp_path) -> None:
    assert monitored(tmp_path, Rebuilt(is_rebuilt=False)).alarms == ()


@pytest.mark.parametrize("exclude", [(), ("0",)], ids=["watched", "left out by the user"])
def test_steps_without_gradient_have_a_frame_unless_left_out(exclude) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    probe = Probe(model, exclude=exclude)
    probe.note_absence(model[0].parameters(), StepContext(step=3), loss=torch.tensor(0.5))
    seen = [(f.step, f.layers, f.loss, f.global_grad_norm) for f in probe.collect()]
    assert seen == ([] if exclude else [(3, ("0",), 0.5, 0.0)])
