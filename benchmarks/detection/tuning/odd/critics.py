"""Wasserstein critics: a loss that is a distance, and means little by itself.

In: points of a slanted cloud. Out: cases with a penalty on the critic's slope, with clipped
weights, and with nothing that bounds the critic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.training import Batch, OptimizerMaker

__all__ = ["CASES"]

SLANT = torch.tensor([[0.6, 0.0], [0.4, 0.2]])
CENTRE = torch.tensor([1.0, -1.0])

Price = Callable[[nn.Module, Tensor, Tensor], Tensor | float]


def slope_price(critic: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """Return ten times the squared distance of the critic's slope from one."""
    share = torch.rand(len(real), 1)
    between = (share * real + (1.0 - share) * made).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    price: Tensor = 10.0 * (slope.norm(dim=1) - 1.0).square().mean()
    return price


def nothing(_critic: nn.Module, _real: Tensor, _made: Tensor) -> float:
    """Let the critic be as steep as it likes."""
    return 0.0


def distance(generator: nn.Module) -> float:
    """Return how far means and covariances of made points are from the real ones."""
    made = generator(torch.randn(2000, 2))
    centre = (made.mean(dim=0) - CENTRE).norm()
    return float(centre + (made.T.cov() - SLANT @ SLANT.T).norm())


def pair(
    price: Price,
    for_critic: OptimizerMaker,
    for_generator: OptimizerMaker,
    *,
    largest: float | None = None,
    end: float = 1.0,
) -> Training:
    """Return the training of a critic and a generator, which take turns.

    Args:
        price: What the critic pays for being steep.
        for_critic: Makes its optimizer.
        for_generator: Makes its optimizer.
        largest: Where the critic's weights are cut off before each step.
        end: Share of both rates that is left after 400 steps.
    """
    net = partial(perceptron, 2, lambda: nn.LeakyReLU(0.2), units=48, inputs=2)
    model = nn.ModuleDict({"critic": net(outputs=1), "generator": net(outputs=2)})
    critic, generator = model["critic"], model["generator"]

    def batch(_step: int) -> Batch:
        return torch.randn(64, 2) @ SLANT.T + CENTRE, torch.randn(64, 2)

    def loss(batch: Batch, index: int) -> Tensor:
        real, noise = batch
        made = generator(noise)
        if index == 1:
            won: Tensor = -critic(made).mean()
            return won
        made = made.detach()
        lost: Tensor = critic(made).mean() - critic(real).mean() + price(critic, real, made)
        return lost

    def cut(_step: int) -> None:
        if largest is not None:
            with torch.no_grad():
                for weight in critic.parameters():
                    weight.clamp_(-largest, largest)

    optimizers = [for_critic(critic.parameters()), for_generator(generator.parameters())]
    return Training(
        model=model,
        optimizers=optimizers,
        batch=batch,
        loss=loss,
        score=lambda: 1.0 - distance(generator),
        schedulers=[LinearLR(optimizer, 1.0, end, 400) for optimizer in optimizers],
        before_step=cut,
    )


adam = partial(torch.optim.Adam, lr=2e-2, betas=(0.0, 0.9))
rmsprop = partial(torch.optim.RMSprop, lr=1e-3)
steep = partial(torch.optim.SGD, lr=2.0)

CASES: tuple[Case, ...] = (
    Case(
        name="wasserstein-slope-price",
        family="wasserstein-gan",
        build=partial(pair, slope_price, adam, adam, end=0.05),
        steps=400,
        level=0.4,
        why="a gradient of a gradient is in the loss, which has no meaning by itself",
    ),
    Case(
        name="wasserstein-clipped-weights",
        family="wasserstein-gan",
        build=partial(pair, nothing, rmsprop, rmsprop, largest=0.1),
        steps=400,
        level=0.4,
        why="the critic's weights are cut off at every step and pile up at the limit",
    ),
    Case(
        name="wasserstein-runs-away",
        family="wasserstein-gan",
        build=partial(pair, nothing, steep, rmsprop),
        steps=400,
        level=0.4,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={"look at the loss": partial(pair, nothing, steep, rmsprop, largest=0.1)},
        why="nothing bounds the critic's weights, so at a rate of two its values grow without end",
    ),
)
