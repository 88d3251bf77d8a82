"""What the frame says equals what an independent computation says."""

from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision

from lightning_gradguard import GradientMonitor
from tests.e2e.models import Classifier, TwoOptimizers, mlp, random_data, trainer

LAYERS = ("network.0", "network.2", "network.4")


class Oracle(pl.Callback):
    """Compute in float64, from the same hooks, what the monitor should find."""

    def __init__(self, scale=1.0):
        self.scale = scale
        self.norms, self.ratios, self.losses = [], [], []
        self.before = {}

    def on_before_backward(self, trainer, module, loss):
        self.losses.append(loss.item() / self.scale)

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.before = {n: p.detach().double().clone() for n, p in module.named_parameters()}
        gradients = {n: p.grad.double() / self.scale for n, p in module.named_parameters()}
        self.norms.append([_joined(gradients, layer).norm().item() for layer in LAYERS])

    def on_train_batch_end(self, trainer, module, *_):
        if not self.before:
            return  # still accumulating
        change = {n: p.detach().double() - self.before[n] for n, p in module.named_parameters()}
        self.ratios.append(
            [(_joined(change, x).norm() / _joined(self.before, x).norm()).item() for x in LAYERS]
        )


def _joined(tensors, layer):
    return torch.cat([t.flatten() for name, t in tensors.items() if name.startswith(layer)])


class Frames:
    """Keep every frame."""

    def __init__(self):
        self.all = []

    def emit(self, event):
        if hasattr(event, "frame"):
            self.all.append(event.frame)


def watch(model, *callbacks, **options):
    frames = Frames()
    monitor = GradientMonitor(sinks=[frames], on_error="raise")
    pl.seed_everything(3, verbose=False)
    trainer(monitor, *callbacks, **options).fit(model, random_data(32, 6))
    return frames.all


def test_norms_ratios_and_losses_equal_float64():
    oracle = Oracle()
    frames = watch(Classifier(mlp(), torch.optim.SGD), oracle)
    assert [frame.step for frame in frames] == list(range(8))
    for frame, norms, ratios, loss in zip(
        frames, oracle.norms, oracle.ratios, oracle.losses, strict=True
    ):
        assert frame.layers == LAYERS
        assert frame.grad_norm.tolist() == pytest.approx(norms, rel=1e-6)
        assert frame.update_ratio.tolist() == pytest.approx(ratios, rel=1e-5)
        assert frame.loss == pytest.approx(loss, rel=1e-6)
        assert frame.global_grad_norm == pytest.approx(math.hypot(*norms), rel=1e-6)
        assert frame.clip_coefficient == pytest.approx(1.0)
        assert frame.learning_rates == (0.01,)


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_does_not_show_in_the_numbers(fused):
    model = Classifier(mlp(), torch.optim.SGD, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    precision = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    # Lightning unscales for ordinary optimizers and leaves it to fused ones.
    oracle = Oracle(scale=1.0 if not fused else 1024.0)
    frames = watch(model, oracle, plugins=[precision])
    for frame, norms in zip(frames, oracle.norms, strict=True):
        assert frame.grad_norm.tolist() == pytest.approx(norms, rel=1e-6)
        assert 0.1 < frame.loss < 10.0
        assert frame.clipped_fraction == 0.0
        assert frame.clip_coefficient == pytest.approx(1.0)


def test_a_step_that_the_scaler_refused_is_a_notice_and_no_alarm():
    class Overflow(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (1e6 if batch_idx == 1 else 1.0)

    frames = Frames()
    monitor = GradientMonitor(sinks=[frames], on_error="raise")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    precision = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    trainer(monitor, plugins=[precision], max_epochs=1).fit(
        Overflow(mlp(), torch.optim.SGD), random_data(32, 6)
    )
    assert [frame.stepped for frame in frames.all] == [True, False, True, True]
    assert [finding.kind for finding in monitor.findings] == ["amp_overflow"]
    assert monitor.alarms == ()


def test_clipping_shows_in_both_norms():
    frames = watch(Classifier(mlp(), torch.optim.SGD), gradient_clip_val=0.05)
    for frame in frames:
        assert frame.global_grad_norm > 0.05
        assert frame.global_grad_norm_at_update == pytest.approx(0.05, rel=1e-4)
        assert frame.clip_coefficient == pytest.approx(0.05 / frame.global_grad_norm, rel=1e-4)
        assert frame.clipped_fraction == 1.0


def test_accumulated_batches_are_one_step_with_their_mean_loss():
    oracle = Oracle()
    frames = watch(Classifier(mlp(), torch.optim.SGD), oracle, accumulate_grad_batches=2)
    assert len(frames) == 4
    # The oracle sees each loss divided by two, as it goes into backward.
    sums = [sum(oracle.losses[i : i + 2]) for i in range(0, 8, 2)]
    assert [frame.loss for frame in frames] == pytest.approx(sums, rel=1e-6)
    for frame, norms in zip(frames, oracle.norms, strict=True):
        assert frame.grad_norm.tolist() == pytest.approx(norms, rel=1e-6)


def test_each_optimizer_is_counted_and_measured_apart():
    frames = watch(TwoOptimizers())
    first = [frame for frame in frames if frame.optimizer_index == 0]
    second = [frame for frame in frames if frame.optimizer_index == 1]
    assert {frame.layers for frame in first} == {("first",)}
    assert {frame.layers for frame in second} == {("second",)}
    assert [frame.step for frame in first] == [frame.step for frame in second] == list(range(8))
    # The second loss is doubled on purpose.
    assert second[0].loss / first[0].loss == pytest.approx(2.0, rel=0.2)


def test_a_line_search_makes_one_frame_per_step():
    frames = watch(Classifier(mlp(), torch.optim.LBFGS, max_iter=4))
    assert [frame.step for frame in frames] == list(range(8))


def test_an_optimizer_that_lightning_does_not_wrap_is_seen_at_its_step():
    class Raw(TwoOptimizers):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)[0]
            loss = self.second(torch.tanh(self.first(batch[0]))).square().mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.expected = self.first.weight.grad.double().norm().item()
            optimizer.step()

    model = Raw()
    frames = watch(model)
    assert len(frames) == 8
    weight_norm = frames[-1].weight_grad_norm[0]
    assert weight_norm == pytest.approx(model.expected, rel=1e-6)
    assert math.isnan(frames[-1].update_norm[0])


def test_a_profile_over_time_goes_to_the_optimizer_of_its_layer():
    class Pair(TwoOptimizers):
        def __init__(self):
            super().__init__()
            self.core = torch.nn.GRU(2, 6, batch_first=True)

        def training_step(self, batch, batch_idx):
            output = self.second(self.first(self.core(batch[0])[0][:, -1]))
            loss = torch.nn.functional.cross_entropy(output, batch[1])
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self):
            late = [*self.second.parameters(), *self.core.parameters()]
            return [torch.optim.SGD(self.first.parameters(), lr=0.1), torch.optim.SGD(late, lr=0.1)]

    frames = Frames()
    monitor = GradientMonitor(sinks=[frames], on_error="raise")
    trainer(monitor, max_steps=2).fit(Pair(), random_data(16, 12, 2))
    profiles = {frame.optimizer_index: set(frame.time_profiles) for frame in frames.all[:2]}
    assert profiles == {0: set(), 1: {"core"}}
