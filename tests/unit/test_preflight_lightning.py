"""The initialisation check runs a LightningModule's own training step, where no trainer is."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule as OtherModule
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_gradguard import preflight
from lightning_gradguard.errors import GradGuardError

BATCH = (torch.arange(24.0).view(6, 4) / 24.0, torch.tensor([0, 1, 2, 0, 1, 2]))


def make_module(base=LightningModule, **attributes):
    class Module(base):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
            self.accuracy = MulticlassAccuracy(3)
            self.outputs = []

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            loss = functional.cross_entropy(logits, y)
            self.accuracy.update(logits, y)
            self.log("loss", loss, prog_bar=True)
            self.log_dict({"accuracy": self.accuracy})
            self.outputs.append(loss)
            return {"loss": loss, "batch_idx": batch_idx}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize("base", [LightningModule, OtherModule])
def test_the_loss_is_that_of_its_own_training_step(base):
    module = make_module(base)
    result = preflight(module, BATCH)
    by_hand = preflight(module.net, BATCH, loss=functional.cross_entropy)
    assert result.ending == "training_step"
    assert [layer.name for layer in result.layers] == ["net.0", "net.2", "net.3"]
    for layer, other in zip(result.layers, by_hand.layers, strict=True):
        assert layer.forward_rms == other.forward_rms
        assert layer.backward_rms == other.backward_rms
    assert "the loss of the model's own training step" in str(result)


def test_metrics_lists_and_methods_are_as_before():
    module = make_module()
    before = {name: value.clone() for name, value in module.accuracy.metric_state.items()}
    preflight(module, BATCH)
    assert module.outputs == []
    assert module.accuracy.update_count == 0
    assert all(torch.equal(before[n], v) for n, v in module.accuracy.metric_state.items())
    assert "log" not in vars(module)


def test_a_loss_takes_the_place_of_the_training_step():
    assert preflight(make_module(), BATCH, loss=functional.cross_entropy).ending == "loss"
    assert preflight(make_module(), BATCH[0], loss="random").ending == "random"


def test_a_step_may_take_the_batch_alone():
    module = make_module()
    kind = type(module)
    kind.training_step = lambda self, batch: functional.cross_entropy(self(batch[0]), batch[1])
    assert preflight(module, BATCH).ending == "training_step"


def test_a_module_without_a_step_of_its_own_is_any_module():
    class Bare(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 3)

        def forward(self, x):
            return self.net(x)

    assert preflight(Bare(), BATCH[0]).ending == "random"


def test_manual_optimization_needs_a_loss():
    module = make_module(automatic_optimization=False)
    with pytest.raises(ValueError, match="`loss` must be given for a model that optimizes by hand"):
        preflight(module, BATCH)
    assert preflight(module, BATCH, loss=functional.cross_entropy).ending == "loss"


def test_a_step_that_returns_nothing_or_needs_a_trainer_is_told():
    module = make_module()
    kind = type(module)
    kind.training_step = lambda _self, _batch, _index: None
    with pytest.raises(GradGuardError, match=r"`training_step` must return a loss.*got None"):
        preflight(module, BATCH)
    kind.training_step = lambda self, _batch, _index: self.trainer.max_epochs
    with pytest.raises(GradGuardError, match=r"needs a trainer, `loss`, which is used"):
        preflight(module, BATCH)


def test_after_a_training_it_still_logs_nowhere():
    module = make_module()
    loader = DataLoader(TensorDataset(*BATCH), batch_size=6)
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module, loader)
    module.outputs.clear()
    logged = dict(trainer.logged_metrics)
    preflight(module, BATCH)
    assert trainer.logged_metrics == logged
    assert module.trainer is trainer
