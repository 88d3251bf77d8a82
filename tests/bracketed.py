"""A tiny training with a bracket around its optimizer, for every kind of optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_gradguard.actions.step import Bracket, Orders

SKIP = Orders(torch.ones((), dtype=torch.bool))
GO = Orders(~SKIP.skip)

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "adam, fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "adam, tensor rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1), foreach=False),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    "nested": lambda p: Nested(p, lr=0.1, momentum=0.9),
    "always decays": lambda p: AlwaysDecays(p, {"lr": 0.1}),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


class Nested(torch.optim.SGD):
    """Calls its parent's step in its own, so that hooks run twice."""

    def step(self, closure=None):
        loss = None if closure is None else closure()
        super().step()
        return loss


class AlwaysDecays(torch.optim.Optimizer):
    """As some third-party optimizers: decays weights and counts even without gradients."""

    def step(self, closure=None):
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["count"] = self.state[p].get("count", 0) + 1
                    p.mul_(1.0 - group["lr"])
                    if p.grad is not None:
                        p.add_(p.grad, alpha=-group["lr"])
        return loss


class Training:
    """A tiny training with a bracket around its optimizer."""

    def __init__(self, make, orders=lambda _step: GO, *, early=(), with_closure=True):
        torch.manual_seed(1)
        self.model = nn.Linear(3, 2)
        self.optimizer = make(self.model.parameters())
        self.with_closure = with_closure or isinstance(self.optimizer, torch.optim.LBFGS)
        self.steps, self.left_out, self.rates = 0, [], []
        self.bracket = Bracket(self.optimizer, lambda: orders(self.steps), self.after)
        self.bracket.attach(lambda: early, may_skip=True)
        self.data = torch.randn(12, 8, 3)

    def after(self, skipped):
        self.left_out.append(skipped if isinstance(skipped, bool) else bool(skipped))

    def closure(self):
        self.optimizer.zero_grad()
        loss = self.model(self.data[self.steps]).square().mean()
        loss.backward()
        self.rates.append([float(group["lr"]) for group in self.optimizer.param_groups])
        return loss

    def run(self, steps):
        for _ in range(steps):
            if self.with_closure:
                self.optimizer.step(self.closure)
            else:
                self.closure()
                self.optimizer.step()
            self.steps += 1
        return self

    def left(self):
        state = copy.deepcopy(self.optimizer.state_dict())
        return [p.detach().clone() for p in self.model.parameters()], state


def assert_same(left, right):
    torch.testing.assert_close(left, right, rtol=0.0, atol=0.0)
