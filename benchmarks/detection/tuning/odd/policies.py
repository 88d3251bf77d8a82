"""An actor and a critic on a small grid: the loss says nothing about the return.

In: a grid made here. Out: a case with returns of five moves, advantages and a bonus for not yet
being sure.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.perceptrons import perceptron

__all__ = ["CASES"]

SIDE, WALKERS, MOVES, DISCOUNT = 6, 24, 5, 0.95
WAYS = torch.tensor([[0, 1], [1, 0], [0, -1], [-1, 0]])

Played = tuple[Tensor, Tensor, Tensor]
"""Places ``(n, 2)``, moves ``(n,)`` and discounted returns ``(n,)``."""


def seen(places: Tensor) -> Tensor:
    """Return what a walker sees of its place: its row and its column, one-hot."""
    return nn.functional.one_hot(places, SIDE).flatten(-2).float()


def is_home(places: Tensor) -> Tensor:
    """Return who stands in the last corner."""
    return (places == SIDE - 1).all(dim=-1)


def scattered(count: int) -> Tensor:
    """Return random places."""
    return torch.randint(SIDE, (count, 2))


class Walker(nn.Module):
    """A body, and two heads: what to do, and what a place is worth."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(perceptron(0, inputs=2 * SIDE, outputs=48), nn.Tanh())
        self.actor, self.critic = nn.Linear(48, 4), nn.Linear(48, 1)

    def forward(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-chances of each move and the worth of each place."""
        known = self.body(seen(places))
        return self.actor(known).log_softmax(dim=-1), self.critic(known).squeeze(-1)


class Grid:
    """Walkers on a grid, who are put to a random place once they are home.

    Args:
        model: Leads them.
    """

    def __init__(self, model: Walker) -> None:
        self.model, self.places = model, scattered(WALKERS)

    @torch.no_grad()
    def play(self, _step: int) -> Played:
        """Make five moves each; the worth of the last place stands for all that come after."""
        places, moves, rewards = [], [], []
        for _ in range(MOVES):
            move = self.model(self.places)[0].exp().multinomial(1).squeeze(1)
            places.append(self.places)
            moves.append(move)
            after = (self.places + WAYS[move]).clamp(0, SIDE - 1)
            rewards.append(is_home(after))
            self.places = torch.where(is_home(after)[:, None], scattered(WALKERS), after)
        worth, returns = self.model(self.places)[1], []
        for reward in reversed(rewards):
            worth = torch.where(reward, 1.0, DISCOUNT * worth)
            returns.append(worth)
        return torch.cat(places), torch.cat(moves), torch.cat(returns[::-1])


def actor_critic(model: Walker, played: Played) -> Tensor:
    """Return the loss of the actor, half that of the critic, and a bonus for entropy."""
    places, moves, returns = played
    chances, worth = model(places)
    gain = returns - worth.detach()
    actor = -(chances.gather(1, moves[:, None]).squeeze(1) * gain).mean()
    entropy = -(chances.exp() * chances).sum(dim=1).mean()
    critic = 0.5 * (returns - worth).square().mean()
    total: Tensor = actor + critic - 0.01 * entropy
    return total


def way_home(model: Walker) -> float:
    """Return the mean discount of 200 walkers on their way home, where 1 is being there."""
    places, worth = scattered(200), torch.zeros(200)
    for moved in range(20):
        worth = torch.maximum(worth, is_home(places) * DISCOUNT**moved)
        move = model(places)[0].exp().multinomial(1).squeeze(1)
        places = (places + WAYS[move]).clamp(0, SIDE - 1)
    return float(worth.mean())


def walking() -> Training:
    """Return the training of a walker."""
    model = Walker()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return Training(
        model=model,
        optimizers=[optimizer],
        batch=Grid(model).play,
        loss=lambda played, _index: actor_critic(model, played),
        score=lambda: way_home(model),
    )


CASES: tuple[Case, ...] = (
    Case(
        name="actor-critic-grid",
        family="actor-critic",
        build=walking,
        steps=350,
        level=0.6,
        why="the loss stays about zero while the walkers learn their way home",
    ),
)
