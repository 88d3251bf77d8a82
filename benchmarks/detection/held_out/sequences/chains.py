"""Tags that follow each other: a loss summed over all paths through a string."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Case
from benchmarks.detection.data import Split
from benchmarks.detection.held_out.sequences import sources
from benchmarks.detection.held_out.sequences.parts import Build, fit, using

__all__ = ["CASES"]


@lru_cache(maxsize=1)
def tagged() -> Split:
    """Return strings of 72 symbols out of 12, told by chance from one of four tags per place."""
    draw = sources.generator()
    follows = torch.full((4, 4), 0.05) + 0.8 * torch.eye(4).roll(1, dims=0)
    shows = torch.rand(4, 12, generator=draw) ** 4
    tags = [torch.randint(4, (1500,), generator=draw)]
    for _ in range(71):
        tags.append(torch.multinomial(follows[tags[-1]], 1, generator=draw).squeeze(1))
    path = torch.stack(tags, dim=1)
    shown = torch.multinomial(shows[path.flatten()], 1, generator=draw).view(path.shape)
    return sources.split(shown, path)


class Chain(nn.Module):
    """Scores of tags from a net, and of one tag behind another from a table.

    Args:
        size: Of the tables at first.
    """

    def __init__(self, size: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 16)
        self.net = nn.Conv1d(16, 24, 3, padding=1)
        self.out = nn.Linear(24, 4)
        self.table = nn.Parameter(size * torch.randn(4, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores per place."""
        scores = self.net(self.embed(inputs).transpose(1, 2)).relu().transpose(1, 2)
        tags: Tensor = self.out(scores)
        return tags


def total_of_logs(scores: Tensor, table: Tensor) -> Tensor:
    """Return the logarithm of the sum over all paths."""
    total = scores[:, 0]
    for place in scores[:, 1:].unbind(dim=1):
        total = (total.unsqueeze(2) + table).logsumexp(dim=1) + place
    return total.logsumexp(dim=1)


def log_of_total(scores: Tensor, table: Tensor) -> Tensor:
    """Return the same, from sums of products: they leave what a number can hold."""
    total = scores[:, 0].exp()
    for place in scores[:, 1:].unbind(dim=1):
        total = (total @ table.exp()) * place.exp()
    return total.sum(dim=1).log()


def likelihood(
    model: nn.Module,
    inputs: Tensor,
    tags: Tensor,
    *,
    total: Callable[[Tensor, Tensor], Tensor] = total_of_logs,
) -> Tensor:
    """Return the negative log-likelihood of the tags, per string."""
    scores, table = model(inputs), model.get_parameter("table")
    path = scores.gather(2, tags.unsqueeze(2)).sum(dim=(1, 2))
    path = path + table[tags[:, :-1], tags[:, 1:]].sum(dim=1)
    parts: Tensor = total(scores, table) - path
    return parts.mean()


def decoded(model: nn.Module, inputs: Tensor, tags: Tensor) -> float:
    """Return the share of tags on the best path that are right."""
    scores, table = model(inputs), model.get_parameter("table")
    best, steps = scores[:, 0], []
    for place in scores[:, 1:].unbind(dim=1):
        highest, origin = (best.unsqueeze(2) + table).max(dim=1)
        best = highest + place
        steps.append(origin)
    path = [best.argmax(dim=1)]
    for origin in reversed(steps):
        path.append(origin.gather(1, path[-1].unsqueeze(1)).squeeze(1))
    return float((torch.stack(path[::-1], dim=1) == tags).float().mean())


def chain(loss: Callable[..., Tensor]) -> Build:
    """Return a training of a chain of tags."""
    return fit(partial(Chain, 0.1), adadelta, tagged, loss=loss, score=decoded)


adadelta = using(torch.optim.Adadelta, lr=1.0)

CASES: tuple[Case, ...] = (
    Case(
        name="chain-of-tags",
        family="crf",
        build=chain(likelihood),
        steps=120,
        level=0.7,
        why="the loss is summed over all paths, and one small table serves every place",
    ),
    Case(
        name="chain-without-logarithms",
        family="crf",
        build=chain(partial(likelihood, total=log_of_total)),
        steps=120,
        level=0.6,
        kinds=("nonfinite",),
        cures={"look at the loss": chain(likelihood)},
        why="a sum over all paths of 72 places, four tags each, is more than a number can hold",
    ),
)
