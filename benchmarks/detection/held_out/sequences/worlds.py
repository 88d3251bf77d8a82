"""Decisions: the value of moves along a corridor, an actor with its critic."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.held_out.sequences.parts import Batch

__all__ = ["CASES"]

CELLS = 12


def moved(cells: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a move (0 left, 1 right) leads, and one as a reward at the right end."""
    after = (cells + 2 * moves - 1).clamp(0, CELLS - 1)
    return after, (after == CELLS - 1).float()


def seen(cells: Tensor) -> Tensor:
    """Return what a cell looks like: bumps around it."""
    return (-0.5 * (cells.unsqueeze(-1) - torch.arange(float(CELLS))).square()).exp()


def net(outputs: int) -> nn.Sequential:
    """Return a small net on what a cell looks like."""
    return nn.Sequential(nn.Linear(CELLS, 48), nn.Tanh(), nn.Linear(48, outputs))


def values(discount: float) -> Tensor:
    """Return the true values of both moves in all cells, by iteration."""
    cells = torch.arange(CELLS).unsqueeze(1)
    after, rewards = moved(cells, torch.tensor([[0, 1]]))
    table = torch.zeros(CELLS, 2)
    for _ in range(200):
        table = rewards + discount * (1.0 - rewards) * table.amax(dim=1)[after]
    return table


class Learner:
    """Q-learning with a frozen copy of the net.

    Args:
        discount: Of what comes later.
        refresh: Steps after which the copy is renewed.
        ends: Whether the right end ends an episode, as it should.
    """

    def __init__(self, discount: float, refresh: int, *, ends: bool = True) -> None:
        self.model, self.copy = net(2), net(2)
        self.discount, self.refresh, self.ends = discount, refresh, ends

    def batch(self, step: int) -> Batch:
        """Draw cells and moves from all that was lived, and renew the copy at times."""
        if step % self.refresh == 0:
            self.copy.load_state_dict(self.model.state_dict())
        return torch.randint(CELLS - 1, (32,)), torch.randint(2, (32,))

    def loss(self, batch: Batch, _index: int) -> Tensor:
        """Return the squared distance to what the copy hopes for."""
        cells, moves = batch
        after, rewards = moved(cells, moves)
        with torch.no_grad():
            hope = self.copy(seen(after)).amax(dim=1)
            if self.ends:
                hope = hope * (1.0 - rewards)
        told = self.model(seen(cells)).gather(1, moves.unsqueeze(1)).squeeze(1)
        return nn.functional.mse_loss(told, rewards + self.discount * hope)

    def score(self) -> float:
        """Return one less the root of the mean squared error of the values."""
        told = self.model(seen(torch.arange(CELLS - 1)))
        return 1.0 - float((told - values(0.9)[:-1]).square().mean().sqrt())


def corridor(
    discount: float = 0.9, refresh: int = 10, rate: float = 0.1, *, ends: bool = True
) -> Training:
    """Return a training by Q-learning."""
    learner = Learner(discount, refresh, ends=ends)
    return Training(
        model=learner.model,
        optimizers=[torch.optim.SGD(learner.model.parameters(), lr=rate, momentum=0.9)],
        batch=learner.batch,
        loss=learner.loss,
        score=learner.score,
    )


class ActorCritic(nn.Module):
    """One net for moves, one for values."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = net(2), net(1)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities of moves, and the value."""
        look = seen(cells)
        return self.actor(look).log_softmax(dim=1), self.critic(look).squeeze(1)


def walked(model: ActorCritic, lived: Batch) -> Tensor:
    """Return the loss of one move from each cell: advantage, value and a little curiosity."""
    cells, _ = lived
    chances, value = model(cells)
    moves = torch.multinomial(chances.detach().exp(), 1)
    after, rewards = moved(cells, moves.squeeze(1))
    with torch.no_grad():
        hope = rewards + 0.9 * (1.0 - rewards) * model(after)[1]
        advantage = hope - value
    chosen = chances.gather(1, moves).squeeze(1)
    curious = (chances.exp() * chances).sum(dim=1)
    parts: Tensor = (value - hope).square() - 3.0 * advantage * chosen + 0.02 * curious
    return parts.mean()


def acting() -> Training:
    """Return a training of an actor and its critic."""
    model = ActorCritic()
    cells = torch.arange(CELLS - 1)
    return Training(
        model=model,
        optimizers=[torch.optim.RMSprop(model.parameters(), lr=3e-3)],
        batch=lambda _step: (torch.randint(CELLS - 1, (24,)), torch.zeros(24)),
        loss=lambda lived, _index: walked(model, lived),
        score=lambda: float(model(cells)[0].exp()[:, 1].mean()),
    )


CASES: tuple[Case, ...] = (
    Case(
        name="corridor-values",
        family="q-learning",
        build=corridor,
        steps=600,
        level=0.85,
        why="the target moves whenever the copy is renewed, and the loss jumps with it",
    ),
    Case(
        name="corridor-actor-critic",
        family="actor-critic",
        build=acting,
        steps=500,
        level=0.85,
        why="the loss hovers about zero, and the actor hears little until the critic knows",
    ),
    Case(
        name="corridor-discount-above-one",
        family="q-learning",
        build=partial(corridor, discount=1.5, ends=False),
        steps=400,
        level=0.3,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={"look at the loss": corridor},
        why="a discount of 1.5 and an end that does not end let values feed on themselves",
    ),
    Case(
        name="corridor-rate-of-nothing",
        family="q-learning",
        build=partial(corridor, rate=1e-6),
        steps=400,
        level=0.8,
        kinds=("not_learning",),
        cures={"higher learning rate": corridor},
        why="a rate of a millionth leaves the values where they began",
    ),
)
