"""Deep Q-learning: targets that the net makes itself, so that the loss says little.

In: nothing but a cart on a short track, made here. Out: cases in which a net of values is trained
on moves that it has chosen. The copy that makes the targets is a part of the model like any other:
it is in the optimizer, and nobody froze it.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.tuning.perceptrons import perceptron
from benchmarks.detection.tuning.training import OptimizerMaker

__all__ = ["CASES"]

WALKERS, KEPT, REWARD = 32, 4000, 0.2


def pushed(state: Tensor, action: Tensor) -> Tensor:
    """Move carts ``(n, 2)``, place and speed, that are pushed left or right and jolted."""
    jolt = 0.1 * torch.randn(len(state))
    speed = state[:, 1] + 0.1 * (2.0 * action - 1.0) + jolt
    return torch.stack([state[:, 0] + 0.3 * speed, speed], dim=1)


def is_off(state: Tensor) -> Tensor:
    """Return which carts have left the track."""
    return state[:, 0].abs() > 1.0


def started(count: int) -> Tensor:
    """Return carts near the middle."""
    return 0.4 * torch.rand(count, 2) - 0.2


class Agent(nn.Module):
    """Values of both pushes, and the copy of the net that targets are made with."""

    def __init__(self) -> None:
        super().__init__()
        self.online = perceptron(2, units=48, inputs=2, outputs=2)
        self.target = deepcopy(self.online)

    def forward(self, state: Tensor) -> Tensor:
        """Return the value of each push."""
        values: Tensor = self.online(state)
        return values


class Track:
    """Carts that an agent pushes, a random choice now and then, and a memory of their moves.

    Args:
        agent: Chooses the pushes.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent, self.state = agent, started(WALKERS)
        self.memory = torch.zeros(0, 6)

    @torch.no_grad()
    def play(self, step: int) -> Tensor:
        """Make one move with each cart and return 64 moves of the past."""
        chosen = self.agent(self.state).argmax(dim=1)
        is_free = torch.rand(WALKERS) < max(0.2, 1.0 - step / 200)
        action = torch.where(is_free, torch.randint(2, (WALKERS,)), chosen)
        after = pushed(self.state, action)
        off = is_off(after)
        numbers = torch.stack([action.float(), off.float()], dim=1)
        self.memory = torch.cat([self.memory, torch.cat([self.state, after, numbers], 1)])[-KEPT:]
        self.state = torch.where(off[:, None], started(WALKERS), after)
        return self.memory[torch.randint(len(self.memory), (64,))]


def surprise(agent: Agent, maker: nn.Module, moves: Tensor, discount: float) -> Tensor:
    """Return the mean square of what moves were worth more than their values."""
    state, after, action, off = moves[:, :2], moves[:, 2:4], moves[:, 4:5], moves[:, 5:]
    with torch.no_grad():
        worth = REWARD + discount * (1.0 - off) * maker(after).amax(dim=1, keepdim=True)
    return nn.functional.mse_loss(agent.online(state).gather(1, action.long()), worth)


def held(agent: Agent) -> float:
    """Return for what share of 100 moves a cart stays on the track, over 64 carts."""
    state, steps = started(64), torch.zeros(64)
    is_on = torch.ones(64, dtype=torch.bool)
    for _ in range(100):
        state = pushed(state, agent(state).argmax(dim=1))
        is_on &= ~is_off(state)
        steps += is_on
    return float(steps.mean()) / 100.0


def learning(optimizer: OptimizerMaker, *, copied_every: int | None, discount: float) -> Training:
    """Return the training of an agent; without copies, the net makes its own targets."""
    agent = Agent()
    track = Track(agent)

    def copy(step: int) -> None:
        if copied_every is not None and step % copied_every == 0:
            agent.target.load_state_dict(agent.online.state_dict())

    maker = agent.online if copied_every is None else agent.target
    return Training(
        model=agent,
        optimizers=[optimizer(agent.parameters())],
        batch=track.play,
        loss=lambda moves, _index: surprise(agent, maker, moves, discount),
        score=lambda: held(agent),
        before_step=copy,
    )


adam = partial(torch.optim.Adam, lr=1e-3)
momentum = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
wild = partial(torch.optim.SGD, lr=0.5, momentum=0.9)
alone = partial(learning, copied_every=None, discount=0.95)

CASES: tuple[Case, ...] = (
    Case(
        name="q-learning-copied-target",
        family="q-learning",
        build=partial(learning, adam, copied_every=15, discount=0.98),
        steps=500,
        level=0.6,
        why="the loss rises with the values; half of the parameters are a copy without gradient",
    ),
    Case(
        name="q-learning-rate-too-high",
        family="q-learning",
        build=partial(alone, wild),
        steps=500,
        level=0.6,
        kinds=("diverging", "exploding", "nonfinite"),
        cures={"lower learning rate": partial(alone, momentum)},
        why="a net that makes its own targets chases them ever higher at a rate of a half",
    ),
)
