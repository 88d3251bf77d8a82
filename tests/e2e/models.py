"""Small trainings that the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gradguard import Frame


def random_data(*shape: int, classes: int = 3, batch_size: int = 8) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(*shape, generator=generator)
    labels = torch.randint(0, classes, shape[:1], generator=generator)
    return DataLoader(TensorDataset(inputs, labels), batch_size=batch_size)


class Classifier(pl.LightningModule):
    """A network, a loss and an optimizer."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        **options: Any,
    ) -> None:
        super().__init__()
        self.network = network
        self.make_optimizer, self.options = optimizer, options

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make_optimizer(self.parameters(), **{"lr": 1e-2, **self.options})


class Last(nn.Module):
    """Hand on the output of the last time step of a recurrent layer."""

    def forward(self, output: tuple[Tensor, Any]) -> Tensor:
        return output[0][:, -1]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


def recurrent(kind: Callable[..., nn.RNNBase] = nn.LSTM) -> nn.Module:
    return nn.Sequential(kind(2, 8, num_layers=2, batch_first=True), Last(), nn.Linear(8, 3))


class TwoOptimizers(pl.LightningModule):
    """Manual optimisation of two halves, as in an adversarial pair."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        for index, optimizer in enumerate(self.optimizers()):
            self.toggle_optimizer(optimizer)
            output = self.second(torch.tanh(self.first(batch[0])))
            loss = nn.functional.cross_entropy(output, batch[1]) * (index + 1)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.SGD(self.first.parameters(), lr=0.1),
            torch.optim.Adam(self.second.parameters(), lr=0.01),
        ]


def trainer(*callbacks: Any, root: type[Any] = pl.Trainer, **options: Any) -> Any:
    return root(
        **{
            "accelerator": "cpu",
            "max_epochs": 2,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": list(callbacks),
            **options,
        }
    )


class Keep:
    """Keep every event."""

    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)

    @property
    def frames(self) -> list[Frame]:
        return [event.frame for event in self.events if hasattr(event, "frame")]


class Poisoned(Classifier):
    """NaN in the loss from the third batch on."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.global_step >= 2 else loss


def hooks_left(model: nn.Module) -> int:
    return sum(
        len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()
    )
