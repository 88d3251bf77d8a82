"""Sets and graphs: nets to which the order of their inputs means nothing."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out import sources
from benchmarks.detection.tuning.once_held_out.layers import Apply
from benchmarks.detection.tuning.once_held_out.parts import (
    explained,
    fit,
    squared_error,
)

__all__ = ["CASES"]


def deep_sets(bias: float | None = None) -> nn.Sequential:
    """Return a net that does not care for the order of its inputs.

    Args:
        bias: Of the second layer at first; `None` for torch's own.
    """
    net = nn.Sequential(
        nn.Linear(1, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        Apply(lambda x: x.amax(dim=1)),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 1),
    )
    if bias is not None:
        nn.init.constant_(net.get_parameter("2.bias"), bias)
    return net


@lru_cache(maxsize=1)
def communities() -> tuple[Tensor, Tensor, Tensor]:
    """Return a graph's normalised edges, features of its nodes and their three communities."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(240) % 3
    chance = torch.where(classes[:, None] == classes, 0.08, 0.01)
    edges = (torch.rand(240, 240, generator=generator) < chance).float().triu(1)
    edges = edges + edges.T + torch.eye(240)
    scale = edges.sum(dim=1).rsqrt()
    features = torch.randn(240, 8, generator=generator)
    features[:, :3] += nn.functional.one_hot(classes, 3)
    return scale[:, None] * edges * scale, features, classes


def nodes() -> data.Split:
    """Return numbers of nodes and their communities."""
    order = torch.randperm(240, generator=torch.Generator().manual_seed(1))
    classes = communities()[2]
    return order[:120], classes[order[:120]], order[120:], classes[order[120:]]


class GraphNet(nn.Module):
    """Graph convolutions over all nodes; the answer for some of them is asked for."""

    def __init__(self) -> None:
        super().__init__()
        edges, features, _ = communities()
        self.edges, self.features = nn.Buffer(edges), nn.Buffer(features)
        self.first, self.second, self.third = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 3)
        self.act_first, self.act_second = nn.ReLU(), nn.ReLU()

    def forward(self, asked: Tensor) -> Tensor:
        """Return logits of the nodes asked for."""
        hidden = self.act_first(self.first(self.edges @ self.features))
        hidden = self.act_second(self.second(self.edges @ hidden))
        logits: Tensor = self.third(self.edges @ hidden)
        return logits[asked]


SGD, Adam = torch.optim.SGD, torch.optim.Adam
regress = partial(fit, criterion=squared_error, score=explained)
on_nodes = partial(fit, GraphNet, split=nodes, batch_size=None)

CASES: tuple[Case, ...] = (
    Case(
        name="deep-sets-range",
        family="deep-sets",
        build=regress(deep_sets, partial(Adam, lr=3e-3), sources.number_sets),
        steps=200,
        level=0.8,
        why="only the largest of ten elements passes a gradient on, per unit",
    ),
    Case(
        name="graph-net-full-batch",
        family="graph-net",
        build=on_nodes(optimizer=partial(Adam, lr=1e-2)),
        steps=150,
        level=0.8,
        why="one graph, all of it in each step, and no noise at all",
    ),
    Case(
        name="deep-sets-dead-born",
        family="deep-sets",
        build=regress(partial(deep_sets, -30.0), partial(Adam, lr=3e-3), sources.number_sets),
        steps=200,
        level=0.3,
        kinds=("dead", "not_learning", "vanishing"),
        cures={
            "initialisation": regress(
                partial(deep_sets, 0.0), partial(Adam, lr=3e-3), sources.number_sets
            )
        },
        why="biases of -30 keep every unit of the second layer from ever firing",
    ),
    Case(
        name="graph-net-killed",
        family="graph-net",
        build=on_nodes(optimizer=partial(SGD, lr=30.0)),
        steps=150,
        level=0.6,
        kinds=("dead", "diverging", "exploding", "not_learning", "vanishing"),
        cures={"lower learning rate": on_nodes(optimizer=partial(SGD, lr=0.5))},
        why="the first steps are so large that hardly a unit of the graph net fires again",
    ),
)
