"""Sound models that nobody here wrote learn under the monitor, and it raises no alarm.

What the frequencies of characters alone give is a loss of 3.4, or 3.0 on the first page: below it,
a model has learnt from context.
"""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.detection import data
from lightning_gradguard import GradientMonitor
from tests.e2e.models import trainer

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow

STEPS = 500
VOCABULARY = 128
PADDING, START, MASK = 0, 1, 2
"""Tokens that the text does not have."""
IGNORED = -100
"""The target that no loss looks at."""


class Learner(pl.LightningModule):
    """A model that knows its own loss, with AdamW, a warm-up and clipping: the usual recipe."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], rate: float) -> None:
        super().__init__()
        self.model, self.names, self.rate = model, names, rate
        self.losses: list[float] = []

    def training_step(self, batch, batch_idx):
        loss = self.model(**dict(zip(self.names, batch, strict=True))).loss
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.rate, weight_decay=0.01)
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.02, total_iters=50)
        return [optimizer], [{"scheduler": warm_up, "interval": "step"}]

    @property
    def last_loss(self) -> float:
        return sum(self.losses[-50:]) / 50


def trained(model, rate: float, batch_size: int, **inputs: Tensor):
    loader = DataLoader(TensorDataset(*inputs.values()), batch_size=batch_size, shuffle=True)
    learner, monitor = Learner(model, tuple(inputs), rate), GradientMonitor()
    model.train()
    trainer(monitor, max_epochs=-1, max_steps=STEPS, gradient_clip_val=1.0).fit(learner, loader)
    assert len(learner.losses) == STEPS
    return learner, monitor


def test_gpt2_learns_to_write():
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=24,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=START,
        eos_token_id=START,
    )
    text = data.text().unfold(0, 24, 12)
    model = transformers.GPT2LMHeadModel(config)
    learner, monitor = trained(model, 5e-3, 8, input_ids=text, labels=text)
    assert learner.last_loss < 2.9
    assert monitor.alarms == ()


def test_bert_fills_gaps():
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        max_position_embeddings=12,
        pad_token_id=PADDING,
    )
    text = data.text()[:3000].unfold(0, 12, 1)
    is_gap = torch.rand(text.shape) < 0.15
    gaps, answers = text.masked_fill(is_gap, MASK), text.masked_fill(~is_gap, IGNORED)
    model = transformers.BertForMaskedLM(config)
    learner, monitor = trained(model, 5e-3, 32, input_ids=gaps, labels=answers)
    assert learner.last_loss < 2.75
    assert monitor.alarms == ()


def test_t5_spells_backwards():
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=START,
        pad_token_id=PADDING,
    )
    text = data.text().unfold(0, 6, 2)
    model = transformers.T5ForConditionalGeneration(config)
    learner, monitor = trained(model, 5e-3, 16, input_ids=text, labels=text.flip(1))
    assert learner.last_loss < 2.3
    assert monitor.alarms == ()


def test_vit_reads_digits():
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=10,
    )
    images, digits, *_ = data.digits()
    model = transformers.ViTForImageClassification(config)
    learner, monitor = trained(model, 3e-3, 16, pixel_values=images, labels=digits)
    assert learner.last_loss < 0.5
    assert monitor.alarms == ()


def test_mamba_learns_to_write():
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        state_size=8,
        num_hidden_layers=2,
        use_cache=False,
    )
    text = data.text().unfold(0, 12, 6)
    model = transformers.MambaForCausalLM(config)
    learner, monitor = trained(model, 5e-3, 8, input_ids=text, labels=text)
    assert learner.last_loss < 2.7
    assert monitor.alarms == ()
