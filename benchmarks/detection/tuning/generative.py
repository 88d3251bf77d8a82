"""Autoencoders and pairs of nets that play against each other, well and failing."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.faults import one_nan, silence, spoiled
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.tasks import explained
from benchmarks.detection.tuning.training import Batch, ModelMaker, Task, adam, trained

__all__ = ["CASES"]

autoencoder_case = partial(Case, family="autoencoder")


def images() -> Task:
    """Give back images as rows of 64 numbers."""
    inputs, _, held_inputs, _ = data.digits()
    rows, held = inputs.flatten(1), held_inputs.flatten(1)

    def draw(_step: int) -> Batch:
        chosen = rows[torch.randint(len(rows), (64,))]
        return chosen, chosen

    return Task(
        draw=draw,
        loss=lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]),
        score=lambda model: explained(model(held), held),
    )


def autoencoder(
    hidden: int = 1,
    activation: type[nn.Module] = nn.ReLU,
    *,
    norm: bool = False,
    skip: bool = False,
) -> nn.Sequential:
    """Return a net with a waist of 16 numbers and as many layers before as after it."""
    half = partial(perceptron, hidden, activation, norm=norm, skip=skip)
    return nn.Sequential(half(outputs=16), half(inputs=16, outputs=64))


class Variational(nn.Module):
    """An autoencoder whose waist is random."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = perceptron(1, outputs=16)
        self.decoder = perceptron(1, inputs=8, outputs=64)
        self.divergence = torch.zeros(())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return images, and keep the divergence from the prior in nats per image."""
        mean, log_variance = self.encoder(inputs).chunk(2, dim=1)
        terms = mean.square() + log_variance.exp() - 1.0 - log_variance
        self.divergence = 0.5 * terms.sum(dim=1).mean()
        noise = torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else 0.0
        decoded: Tensor = self.decoder(mean + noise)
        return decoded


def variational(warmup_steps: int) -> Training:
    """Return a training in which the divergence counts more from step to step."""
    task, model, weight = images(), Variational(), torch.zeros(())

    def before_step(step: int) -> None:
        weight.fill_(min(step / warmup_steps, 1.0) / 64.0)

    def loss(batch: Batch, _index: int) -> Tensor:
        return task.loss(model, batch) + weight * model.divergence

    return Training(
        model=model,
        optimizers=[adam(model.parameters())],
        batch=task.draw,
        loss=loss,
        score=lambda: task.score(model),
        before_step=before_step,
    )


def adversaries(*, rate: float = 5e-4) -> Training:
    """Return a generator of points ``(n, 2)`` and a critic that tells them from real ones.

    The score is one less the distance of means and deviations from the real ones.
    """
    net = partial(perceptron, 2, lambda: nn.LeakyReLU(0.2), units=32, inputs=2)
    model = nn.ModuleDict({"critic": net(outputs=1), "generator": net(outputs=2)})
    critic, generator = model["critic"], model["generator"]
    centre, spread = torch.tensor([1.0, -1.0]), torch.tensor([0.3, 0.6])
    judge = nn.functional.softplus

    def batch(_step: int) -> Batch:
        return torch.randn(64, 2) * spread + centre, torch.randn(64, 2)

    def loss(batch: Batch, index: int) -> Tensor:
        real, noise = batch
        if index == 1:
            return judge(-critic(generator(noise))).mean()
        made = generator(noise).detach()
        return judge(-critic(real)).mean() + judge(critic(made)).mean()

    def score() -> float:
        made = generator(torch.randn(1000, 2))
        return 1.0 - float((made.mean(dim=0) - centre).norm() + (made.std(dim=0) - spread).norm())

    return Training(
        model=model,
        optimizers=[
            torch.optim.Adam(part.parameters(), lr=rate, betas=(0.5, 0.9))
            for part in (critic, generator)
        ],
        batch=batch,
        loss=loss,
        score=score,
    )


on_images = partial(trained, images)
plain: ModelMaker = autoencoder
flat = partial(autoencoder, 4, nn.Sigmoid)

CASES: tuple[Case, ...] = (
    autoencoder_case(
        name="autoencoder-adam",
        build=partial(on_images, plain, adam),
        steps=250,
        level=0.6,
        why="the target is the input",
    ),
    Case(
        name="vae-warmup",
        family="vae",
        build=partial(variational, 150),
        steps=300,
        level=0.3,
        why="the loss rises while the divergence is given more weight",
    ),
    Case(
        name="gan-points",
        family="gan",
        build=adversaries,
        steps=600,
        level=0.5,
        why="two optimizers against each other: neither loss goes down",
    ),
    Case(
        name="gan-rate-too-high",
        family="gan",
        build=partial(adversaries, rate=1.0),
        steps=600,
        level=0.5,
        kinds=("diverging", "exploding"),
        cures={"lower learning rate": adversaries},
        why="at 1.0, Adam throws both nets about, and neither finds the other",
    ),
    autoencoder_case(
        name="autoencoder-sigmoid8",
        build=partial(on_images, flat, adam),
        steps=200,
        level=0.4,
        kinds=("vanishing", "not_learning"),
        cures={
            "normalisation": partial(on_images, partial(flat, norm=True), adam),
            "skip connections": partial(on_images, partial(flat, norm=True, skip=True), adam),
        },
        why="eight sigmoids leave the encoder without gradient; all it learns is the mean image",
    ),
    autoencoder_case(
        name="autoencoder-gradients-lost",
        build=partial(on_images, plain, adam, fault=silence(keep="1.3.bias")),
        steps=200,
        level=0.4,
        kinds=("not_learning", "vanishing"),
        cures={"backward pass": partial(on_images, plain, adam)},
        why="all gradients but the last bias's are multiplied by zero",
    ),
    autoencoder_case(
        name="autoencoder-nan-data",
        build=partial(trained, spoiled(images, one_nan, start=100), plain, adam),
        steps=180,
        level=0.4,
        kinds=("nonfinite",),
        onset=100,
        cures={"look at the data": partial(on_images, plain, adam)},
        why="from a step on every batch has a missing number",
    ),
)
