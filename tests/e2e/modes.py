"""The trainings that people really run, tiny: what `test_values` compares number by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.e2e.models import Classifier, TwoOptimizers, convolutional, mlp, recurrent

ROWS = (32, 6)
SGD, Adam = torch.optim.SGD, torch.optim.Adam


class Noted(Classifier):
    """A classifier that keeps the losses it returned."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.losses: list[float] = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        return loss


# Networks.


def wide() -> nn.Module:
    """One layer that is sampled between two that are not."""
    return nn.Sequential(nn.Linear(6, 100), nn.Tanh(), nn.Linear(100, 99), nn.Linear(99, 3))


class Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, inputs):
        return inputs.to(self.dtype)


def of_three_dtypes() -> nn.Module:
    return nn.Sequential(
        Cast(torch.float16),
        nn.Linear(6, 100, dtype=torch.float16),
        nn.Linear(100, 50, dtype=torch.float16),
        Cast(torch.bfloat16),
        nn.Linear(50, 100, dtype=torch.bfloat16),
        Cast(torch.float64),
        nn.Linear(100, 50, dtype=torch.float64),
        Cast(torch.float32),
        nn.Linear(50, 3),
    )


def channels_last() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(1, 24, 3), nn.Conv2d(24, 24, 3), nn.Flatten())
    return nn.Sequential(network, nn.Linear(96, 3)).to(memory_format=torch.channels_last)


class Complex(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width, dtype=torch.complex64)
        self.second = nn.Linear(width, 3, dtype=torch.complex64)

    def forward(self, inputs):
        return self.second(self.first(inputs.to(torch.complex64))).abs()


class Strided(nn.Module):
    """Parameters whose numbers do not lie side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Parameter(torch.randn(80, 6).t())
        self.cut = nn.Parameter(torch.randn(80, 9)[:, :3])
        self.large = nn.Parameter(torch.randn(100, 120)[:, :100])

    def forward(self, inputs):
        hidden = torch.tanh(inputs @ self.turned / 3.0)
        hidden = nn.functional.pad(hidden, (0, 20)) @ self.large
        return hidden[:, :80] @ self.cut / 30.0


class Words(nn.Module):
    """A sparse embedding of which each batch uses some rows, several times."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(size, width, sparse=True)
        self.head = nn.Linear(width, 3)

    def forward(self, inputs):
        places = (inputs.abs() * 7.0).long() % self.words.num_embeddings
        return self.head(self.words(places).mean(1))


class Odd(nn.Module):
    """An empty parameter, one that is never used, and one that only some batches use."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.unused, self.often = mlp(), nn.Linear(2, 2), nn.Linear(3, 3)
        self.empty = nn.ParameterList([nn.Parameter(torch.empty(0, 4))])
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        outputs = self.network(inputs) + self.empty[0].sum()
        return self.often(outputs) if self.calls % 3 else outputs


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.again = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.again.weight = self.first.weight

    def forward(self, inputs):
        return self.again(torch.tanh(self.middle(torch.tanh(self.first(inputs)))))[:, :3]


class Checkpointed(nn.Module):
    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Linear(6, 8), mlp_of(8), nn.Linear(8, 3)
        self.use_reentrant = use_reentrant

    def forward(self, inputs):
        hidden = self.first(inputs)
        return self.last(checkpoint(self.block, hidden, use_reentrant=self.use_reentrant))


def mlp_of(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))


def spectral() -> nn.Module:
    """A weight that makes a step of power iteration whenever anybody looks at it."""
    network = mlp()
    for layer in (network[0], network[2]):
        nn.utils.parametrizations.spectral_norm(layer)
    return network


class Dropped(nn.Module):
    def forward(self, weight):
        return weight * (torch.rand_like(weight) < 0.9)


def drawn() -> nn.Module:
    """A weight that draws random numbers whenever anybody looks at it."""
    network = mlp()
    nn.utils.parametrize.register_parametrization(network[0], "weight", Dropped())
    return network


# Modules that do something special.


class TurnsGradients(Noted):
    """Gradients whose numbers do not lie side by side."""

    def on_after_backward(self):
        for layer in (self.network[0], self.network[2]):
            layer.weight.grad = layer.weight.grad.t().contiguous().t()
            layer.bias.grad = layer.bias.grad.repeat_interleave(2)[::2]


class ExpandsGradients(Noted):
    """Gradients that are one number, seen many times."""

    def on_after_backward(self):
        for parameter in self.parameters():
            parameter.grad = parameter.grad.mean().expand(parameter.shape)


class FewOutliers(Noted):
    """A large gradient with three entries that clipping by value cuts; no sample has them."""

    def on_after_backward(self):
        self.network[2].weight.grad.view(-1)[torch.tensor([1, 2, 5])] = 50.0


class ClipsData(Noted):
    """As people did before autograd counted who writes to a tensor."""

    def on_before_optimizer_step(self, optimizer):
        for parameter in self.parameters():
            parameter.grad.data.clamp_(-0.02, 0.02)


class ClipsDataOfOutliers(FewOutliers):
    def on_before_optimizer_step(self, optimizer):
        for parameter in self.parameters():
            parameter.grad.data.clamp_(-2.0, 2.0)


class Breaks(Noted):
    """One infinite entry at the third step, NaN from the fifth on."""

    def on_after_backward(self):
        gradient = self.network[2].weight.grad.view(-1)
        if self.global_step == 2:
            gradient[7] = -float("inf")
            gradient[8:] = 0.0
        if self.global_step == 4:
            self.network[0].weight.grad.fill_(float("nan"))


class Replaces(Noted):
    def on_before_optimizer_step(self, optimizer):
        for parameter in self.parameters():
            parameter.grad = parameter.grad.clamp(-0.02, 0.02)


class ClipsLate(Noted):
    def configure_gradient_clipping(self, optimizer, **_):
        if self.global_step >= 4:
            self.clip_gradients(optimizer, gradient_clip_val=0.05, gradient_clip_algorithm="norm")


class Grows(Noted):
    """A layer that comes in mid-run, then weights that are made anew, then one that thaws."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.network[2].requires_grad_(requires_grad=False)

    def on_train_batch_start(self, batch, batch_idx):
        optimizer = self.optimizers().optimizer
        if self.global_step == 2:
            self.late = nn.Linear(3, 3)
            optimizer.add_param_group({"params": list(self.late.parameters())})
        if self.global_step == 4:
            layer = self.network[0]
            old, layer.weight = layer.weight, nn.Parameter(torch.randn(8, 6))
            group = optimizer.param_groups[0]["params"]
            group[next(i for i, p in enumerate(group) if p is old)] = layer.weight
        if self.global_step == 6:
            self.network[2].requires_grad_(requires_grad=True)

    def forward(self, inputs):
        outputs = self.network(inputs)
        return self.late(outputs) if hasattr(self, "late") else outputs


class Two(TwoOptimizers):
    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def manual_backward(self, loss, *args, **kwargs):
        self.losses.append(loss.item())
        super().manual_backward(loss, *args, **kwargs)


class Raw(Two):
    """Steps without a word to Lightning."""

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=False)[0]
        loss = self.second(torch.tanh(self.first(batch[0]))).square().mean()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class Searches(Noted):
    """Only the last look of a line search counts."""

    def training_step(self, batch, batch_idx):
        self.losses.clear()
        return super().training_step(batch, batch_idx)


# The table.


@dataclass(frozen=True)
class Mode:
    """One row: a training that people really run."""

    model: Callable[[], pl.LightningModule]
    shape: tuple[int, ...] = ROWS
    options: dict[str, Any] = field(default_factory=dict)
    uses_scaler: bool = False
    oracle: dict[str, bool] = field(default_factory=dict)
    sees_update: bool = True
    clips: bool | None = False
    rel: float = 1e-8
    """Duplicate rows of a sparse gradient are added up in float32, in whatever order."""
    sampled_rel: float = 0.15

    @property
    def exact(self) -> bool:
        return self.oracle.get("exact", False)


def mode(network=mlp, optimizer=SGD, *, module=Noted, shape=ROWS, **options) -> Mode:
    """Return a row of a network and an optimizer; options go to the optimizer or the trainer."""
    fields = {k: options.pop(k) for k in tuple(options) if k in Mode.__dataclass_fields__}
    own = {k: options.pop(k) for k in ("lr", "fused", "max_iter") if k in options}
    return Mode(lambda: module(network(), optimizer, **own), shape, options, **fields)


def scaled(**options) -> Mode:
    """Return a row under a gradient scaler, which leaves the unscaling to fused optimizers."""
    oracle = {"is_scaled": options.get("fused", False)}
    return mode(uses_scaler=True, oracle=oracle, **options)


FUSED = {"SGD": SGD, "Adam": Adam, "AdamW": torch.optim.AdamW, "Adagrad": torch.optim.Adagrad}
BY_NORM = {"gradient_clip_val": 0.05, "clips": True}
BY_VALUE = {"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value", "clips": True}
SHORT_WINDOW = {"accumulate_grad_batches": 4, "shape": (72, 6)}  # 9 batches: 4, 4 and 1

MODES = {
    "fp32": mode(),
    "fp32, adam": mode(optimizer=Adam),
    "fp32, a large layer": mode(wide),
    "fp32, a large layer, exact": mode(wide, oracle={"exact": True}),
    "fp32, batch norm and dropout": mode(convolutional, Adam, shape=(32, 1, 6, 6)),
    "fp32, lstm": mode(recurrent, shape=(32, 12, 2)),
    "bf16-mixed": mode(wide, precision="bf16-mixed"),
    "bf16-true": mode(wide, precision="bf16-true"),
    "16-true": mode(wide, precision="16-true"),
    "64-true": mode(wide, precision="64-true"),
    "scaler": scaled(network=wide),
    "scaler, clipping": scaled(**BY_NORM),
    "accumulation, short window": mode(wide, **SHORT_WINDOW),
    "accumulation, clipping": mode(**SHORT_WINDOW, **BY_NORM),
    "accumulation, scaler": scaled(**SHORT_WINDOW),
    "accumulation, scaler, fused": scaled(**SHORT_WINDOW, optimizer=Adam, fused=True),
    "clipping by norm": mode(wide, **BY_NORM),
    "clipping by value": mode(wide, **BY_VALUE),
    "clipping by value, few entries": mode(wide, module=FewOutliers, **BY_VALUE),
    "clipping that begins late": mode(module=ClipsLate, clips=True),
    "clipping of data": mode(module=ClipsData, clips=True),
    "clipping of data, few entries": mode(wide, Adam, module=ClipsDataOfOutliers, clips=True),
    "clipping into new tensors": mode(wide, module=Replaces, clips=True),
    "broken": mode(module=Breaks, clips=None),
    "broken, a large layer, exact": mode(wide, module=Breaks, clips=None, oracle={"exact": True}),
    "two optimizers, toggled": Mode(Two),
    "raw optimizer": Mode(Raw, oracle={"is_raw": True}, sees_update=False),
    "line search": mode(optimizer=torch.optim.LBFGS, module=Searches, max_iter=4),
    "channels last": mode(channels_last, Adam, shape=(32, 1, 6, 6)),
    "strided parameters": mode(Strided),
    "strided gradients": mode(wide, module=TurnsGradients),
    "expanded gradients": mode(wide, module=ExpandsGradients),
    "strided gradients, clipping": mode(wide, module=TurnsGradients, **BY_VALUE),
    "complex": mode(lambda: Complex(7)),
    "complex, a large layer": mode(lambda: Complex(1000), lr=1e-3),
    "sparse embedding": mode(lambda: Words(20, 5), rel=1e-6),
    "sparse embedding, large": mode(lambda: Words(100, 50), rel=1e-6, sampled_rel=0.4),
    "sparse embedding, exact": mode(lambda: Words(900, 50), rel=1e-6, oracle={"exact": True}),
    "three dtypes": mode(of_three_dtypes, lr=0.5),
    "empty, unused and rarely used": mode(Odd),
    "tied": mode(Tied),
    "parameters that come later": mode(module=Grows, lr=0.1),
    "compiled": mode(lambda: torch.compile(mlp(), backend="aot_eager")),
    "checkpointing": mode(lambda: Checkpointed(use_reentrant=False)),
    "checkpointing, reentrant": mode(lambda: Checkpointed(use_reentrant=True)),
    **{f"fused {n}": mode(wide, kind, fused=True) for n, kind in FUSED.items()},
    **{f"fused {n}, by norm": mode(wide, k, fused=True, **BY_NORM) for n, k in FUSED.items()},
    **{f"fused {n}, by value": mode(wide, k, fused=True, **BY_VALUE) for n, k in FUSED.items()},
    **{f"scaler, fused {n}": scaled(optimizer=k, fused=True) for n, k in FUSED.items()},
}

PARAMETRIZED = {"spectral norm": mode(spectral), "a random parametrization": mode(drawn)}
"""Weights that change something whenever anybody looks at them; their layers' names are shorter."""
