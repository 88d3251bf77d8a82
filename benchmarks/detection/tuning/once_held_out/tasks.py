"""Other aims than one label: rewards, experts, several heads, fine-tuning, rare classes."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from benchmarks.detection import data
from benchmarks.detection.case import Case
from benchmarks.detection.tuning.once_held_out.convolutions import head
from benchmarks.detection.tuning.once_held_out.parts import (
    cross_entropy,
    fit,
)

__all__ = ["CASES"]


def gamble(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the surrogate loss of guesses that are told right or wrong, and no more."""
    chances = model(inputs).log_softmax(dim=1)
    chosen = chances.exp().multinomial(1)
    reward = (chosen.squeeze(1) == targets).float()
    told = chances.gather(1, chosen).squeeze(1)
    surrogate: Tensor = -(told * (reward - reward.mean())).mean()
    return surrogate


class Experts(nn.Module):
    """Six experts, of which each image is given to one."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(64, 6)
        experts = [nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10)) for _ in range(6)]
        self.experts = nn.ModuleList(experts)

    def forward(self, images: Tensor) -> Tensor:
        """Return the chosen expert's logits times the gate's trust in it."""
        flat = images.flatten(1)
        trust, chosen = self.gate(flat).softmax(dim=1).max(dim=1)
        logits = flat.new_zeros(len(flat), 10)
        for number, expert in enumerate(self.experts):
            places = (chosen == number).nonzero().squeeze(1)
            if len(places) > 0:
                logits = logits.index_copy(0, places, expert(flat[places]).to(logits.dtype))
        trusted: Tensor = logits * trust.unsqueeze(1)
        return trusted


class Heads(nn.Module):
    """One body, one head for the class, and one for whether it is odd, asked every other time."""

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(1, 16, 3, padding=1)
        self.body = nn.Sequential(convolution, nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
        self.digit, self.is_odd, self.turn = nn.Linear(256, 10), nn.Linear(256, 2), 0

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of the class."""
        logits: Tensor = self.digit(self.body(images))
        return logits

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the heads whose turn it is."""
        self.turn += 1
        loss = cross_entropy(self, images, targets)
        if self.turn % 2 == 0:
            odd = self.is_odd(self.body(images))
            loss = loss + nn.functional.cross_entropy(odd, targets % 2)
        return loss


def of_heads(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of a net with two heads."""
    loss: Tensor = model.loss(inputs, targets)  # type: ignore[operator]  # a `Heads`
    return loss


def pretrained() -> nn.Sequential:
    """Return a small net that knows digits already, its first layer frozen."""
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, head(24))
    inputs, targets, *_ = data.digits()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(100):
        chosen = torch.randint(len(inputs), (32,))
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(net, inputs[chosen], targets[chosen]))
        optimizer.step()
    net[0].requires_grad_(requires_grad=False)
    return net


@lru_cache(maxsize=1)
def negatives() -> data.Split:
    """Return digits dark on light."""
    inputs, targets, held_inputs, held_targets = data.digits()
    return -inputs, targets, -held_inputs, held_targets


@lru_cache(maxsize=1)
def rare() -> data.Split:
    """Return digits of which two classes are thirty times rarer than the others in training."""
    inputs, targets, held_inputs, held_targets = data.digits()
    is_kept = (targets < 8) | (torch.arange(len(targets)) % 30 == 0)
    return inputs[is_kept], targets[is_kept], held_inputs, held_targets


def forgotten_head() -> nn.Module:
    """Return a pretrained net in which only the bias of the last layer may still move."""
    net = pretrained()
    net.requires_grad_(requires_grad=False)
    net.get_parameter("4.2.bias").requires_grad_()
    return net


SGD, Adam = torch.optim.SGD, torch.optim.Adam

CASES: tuple[Case, ...] = (
    Case(
        name="guessing-for-reward",
        family="policy-gradient",
        build=fit(Heads, partial(Adam, lr=3e-3), data.digits, criterion=gamble, batch_size=64),
        steps=300,
        level=0.5,
        why="the loss hovers about zero while rewards rise; one of two heads is never used",
    ),
    Case(
        name="experts-one-each",
        family="mixture-of-experts",
        build=fit(Experts, partial(torch.optim.RMSprop, lr=2e-3), data.digits),
        steps=200,
        level=0.8,
        why="an expert that is given no image has no gradient in that step",
    ),
    Case(
        name="heads-in-turn",
        family="multi-task",
        build=fit(Heads, partial(SGD, lr=0.05, momentum=0.9), data.digits, criterion=of_heads),
        steps=200,
        level=0.88,
        why="the second head has a gradient every other step only",
    ),
    Case(
        name="fine-tuned-gently",
        family="fine-tuning",
        build=fit(pretrained, partial(torch.optim.AdamW, lr=1e-3), negatives),
        steps=250,
        level=0.6,
        why="a small rate on purpose, from weights that know another task; one layer frozen",
    ),
    Case(
        name="rare-classes",
        family="multi-task",
        build=fit(Heads, partial(torch.optim.Adagrad, lr=0.02), rare),
        steps=200,
        level=0.68,
        why="two of ten classes hardly ever occur",
    ),
    Case(
        name="fine-tuned-frozen",
        family="fine-tuning",
        build=fit(forgotten_head, partial(torch.optim.AdamW, lr=1e-3), negatives),
        steps=250,
        level=0.4,
        kinds=("not_learning", "vanishing"),
        cures={"backward pass": fit(pretrained, partial(torch.optim.AdamW, lr=1e-3), negatives)},
        why="all layers were frozen by mistake, and one bias vector alone can move",
    ),
)
