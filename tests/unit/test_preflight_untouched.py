"""The initialisation check only looks: a model, and all random numbers, are as they were."""

from __future__ import annotations

import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_gradguard import preflight
from lightning_gradguard.errors import GradGuardError
from lightning_gradguard.initialisation import untouched


class Busy(nn.Module):
    """Changes whatever a forward pass can change."""

    def __init__(self, *, raises: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.spectral = parametrizations.spectral_norm(nn.Linear(6, 6))
        self.old = torch.nn.Linear(6, 6)
        self.dropout = nn.Dropout(0.5)
        self.drop_again = nn.Dropout(0.2).eval()
        self.calls, self.seen, self.names = 0, [], {"a": 1}
        self.total = torch.zeros(3)
        self.generator = torch.Generator().manual_seed(5)
        self.raises = raises
        self.register_buffer("kept", torch.zeros(2))
        self.seen_by_hook = []
        self.old.register_forward_hook(lambda *_: self.seen_by_hook.append(1))

    def forward(self, x):
        self.calls += 1
        self.seen.append(self.calls)
        self.names["b"] = 2
        self.total += 1.0
        self.kept = self.kept + 1.0
        self.extra = object()
        random.random()  # noqa: S311 - the state is what matters
        np.random.rand()  # noqa: NPY002
        torch.rand((), generator=self.generator)
        with torch.no_grad():
            self.old.weight.mul_(0.5)
        x.add_(1.0)
        self.train()
        x = self.old(self.spectral(self.dropout(self.norm(self.first(x)))))
        if self.raises:
            msg = "out of order"
            raise RuntimeError(msg)
        return x


def state_of(model: nn.Module) -> dict:
    """Return everything about a model and the random numbers, as bytes and identities."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    return {
        "tensors": {k: v.detach().clone() for k, v in model.state_dict().items()},
        "parameters": {
            k: (id(p), p.requires_grad, p._version) for k, p in model.named_parameters()
        },
        "buffers": {k: (id(b), b._version) for k, b in model.named_buffers()},
        "grads": {k: None if p.grad is None else id(p.grad) for k, p in model.named_parameters()},
        "modes": {k: m.training for k, m in model.named_modules()},
        "attributes": {k: list(vars(m)) for k, m in model.named_modules()},
        "hooks": {
            k: [list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)]
            for k, m in model.named_modules()
        },
        "random": (python, numpy[1].tolist(), numpy[2:], torch.get_rng_state()),
    }  # fmt: skip


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("raises", [False, True])
def test_a_model_and_all_random_numbers_are_as_before(raises):
    model, inputs = Busy(raises=raises), torch.randn(3, 4, 6)
    model.first.weight.grad = torch.ones_like(model.first.weight)
    grad, total, batch = model.first.weight.grad, model.total, inputs.clone()
    before, generator = state_of(model), model.generator.get_state()
    if raises:
        with pytest.raises(GradGuardError, match="out of order"):
            preflight(model, inputs)
    else:
        preflight(model, inputs)
    assert same(before, state_of(model))
    assert model.first.weight.grad is grad
    assert torch.equal(grad, torch.ones_like(grad))
    assert (model.calls, model.seen, model.names, model.seen_by_hook) == (0, [], {"a": 1}, [])
    assert model.total is total
    assert torch.equal(total, torch.zeros(3))
    assert torch.equal(model.generator.get_state(), generator)
    assert torch.equal(inputs, batch)
    assert not hasattr(model, "extra")


def test_running_statistics_and_counters_of_batch_norm_stay():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    preflight(model, torch.randn(16, 4) + 5.0)
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert torch.equal(model[1].running_var, torch.ones(4))
    assert model[1].num_batches_tracked.item() == 0


def test_training_goes_on_as_if_nothing_had_been_checked():
    def trained(*, checked):
        torch.manual_seed(7)
        model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            if checked and step == 1:
                preflight(model, torch.randn(4, 8, generator=torch.Generator()))
            optimizer.zero_grad()
            model(torch.randn(4, 8)).square().mean().backward()
            optimizer.step()
        return list(model.state_dict().values())

    assert all(map(torch.equal, trained(checked=False), trained(checked=True)))


def test_a_container_that_must_not_be_written_to_is_left_alone():
    class Frozen(dict):
        def _refuse(self, *_arguments, **_options):
            msg = "frozen"
            raise RuntimeError(msg)

        clear = update = __setitem__ = copy = _refuse

    model = nn.Linear(2, 2)
    model.settings = Frozen(width=2)
    preflight(model, torch.ones(3, 2))
    assert model.settings == {"width": 2}


@pytest.mark.parametrize("name", ["cuda:1", "mps"])
def test_the_random_numbers_of_a_device_are_put_back(name, monkeypatch):
    class Generators:
        """Stands for torch.cuda or torch.mps."""

        state, seeds, current = "as before", [], None

        def get_rng_state(self, *device):
            assert list(map(str, device)) == ([] if name == "mps" else [name])
            return self.state

        def set_rng_state(self, state, *_device):
            self.state = state

        def manual_seed(self, seed):
            self.seeds.append((self.current, seed))
            self.state = "seeded"

        @contextmanager
        def device(self, device):
            self.current = str(device)
            yield

    fake = Generators()
    monkeypatch.setattr(untouched, "_generators", lambda _device: fake)
    with untouched.seeded(3, [torch.device("cpu"), torch.device(name)]):
        assert fake.state == "seeded"
    assert fake.state == "as before"
    assert fake.seeds == [(None if name == "mps" else name, 3)]
