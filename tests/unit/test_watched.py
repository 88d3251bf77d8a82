"""Parameters are found once, then only checked; whatever changes is noticed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.scope import Scope
from lightning_gradguard.watched import _MOST_LAYOUTS, Watchlist


class Looking:
    """A model, its watchlist, and how often the model was looked through."""

    def __init__(self, model: nn.Module, *, exact: bool = False) -> None:
        self.model, self.scans = model, 0
        self.list = Watchlist(self.scan, exact=exact)

    def scan(self, check):
        self.scans += 1
        return Scope.of(self.model, check=check)

    def watched(self, parameters=None, index=0):
        parameters = self.model.parameters() if parameters is None else parameters
        return self.list.of(index, list(parameters), {})

    def names(self, parameters=None):
        return [tensor.name for tensor in self.watched(parameters).tensors]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def with_gradients(model: nn.Module, *names: str) -> None:
    for name, parameter in model.named_parameters():
        has_gradient = not names or name in names
        parameter.grad = torch.ones_like(parameter) if has_gradient else None


def test_nothing_is_looked_up_twice() -> None:
    looking = Looking(network())
    with_gradients(looking.model)
    first = looking.watched()
    columns, _ = first.with_gradient()
    for _ in range(3):
        assert looking.watched() is first
        assert looking.watched().with_gradient()[0] is columns
    assert looking.scans == 1


def test_gradients_come_in_the_order_of_their_columns() -> None:
    looking = Looking(network())
    for _ in range(2):
        for parameter in looking.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        columns, gradients = looking.watched().with_gradient()
        for parameter, gradient in zip(columns.parameters, gradients, strict=True):
            assert parameter.grad is gradient


def test_one_that_thaws_is_noticed() -> None:
    looking = Looking(network())
    looking.model[1].requires_grad_(requires_grad=False)
    assert looking.names() == ["0.weight", "0.bias"]
    looking.model[1].requires_grad_(requires_grad=True)
    assert looking.names() == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_one_that_freezes_is_noticed() -> None:
    looking = Looking(network())
    assert len(looking.names()) == 4
    looking.model[0].requires_grad_(requires_grad=False)
    assert looking.names() == ["1.weight", "1.bias"]


def test_one_that_is_added_is_noticed() -> None:
    looking = Looking(network())
    looking.watched()
    looking.model.append(nn.Linear(1, 1))
    assert looking.names()[-2:] == ["2.weight", "2.bias"]
    assert looking.scans == 2


def test_one_that_is_made_anew_is_noticed() -> None:
    looking = Looking(network())
    looking.watched()
    looking.model[0].weight = nn.Parameter(torch.ones(3, 2))
    tensors = looking.watched().tensors
    assert tensors[0].parameter is looking.model[0].weight
    with_gradients(looking.model)
    columns, _ = looking.watched().with_gradient()
    assert any(parameter is looking.model[0].weight for parameter in columns.parameters)


def test_one_that_the_optimizer_drops_is_no_longer_watched() -> None:
    looking = Looking(network())
    looking.watched()
    assert looking.names(looking.model[1].parameters()) == ["1.weight", "1.bias"]
    assert looking.scans == 1


def test_parameters_from_elsewhere_are_searched_for_once() -> None:
    looking = Looking(network())
    foreign = [*looking.model.parameters(), nn.Parameter(torch.ones(1))]
    for _ in range(3):
        assert len(looking.names(foreign)) == 4
    assert looking.scans == 2


def test_each_optimizer_has_its_own() -> None:
    looking = Looking(network())
    first = looking.watched(looking.model[0].parameters(), index=0)
    second = looking.watched(looking.model[1].parameters(), index=1)
    assert first.modules == {"0"}
    assert second.modules == {"1"}
    assert looking.watched(looking.model[0].parameters(), index=0) is first


def test_columns_are_kept_for_every_set_that_has_gradients() -> None:
    looking = Looking(network())
    watched = looking.watched()
    sets = ["0.weight"], ["0.weight", "0.bias"], [], ["1.bias"]
    found = []
    for _ in range(2):
        for names in sets:
            with_gradients(looking.model, *names)
            found.append(watched.with_gradient()[0])
    assert found[:4] == found[4:]
    assert len(set(map(id, found))) == 4
    with_gradients(looking.model, "none of them")
    assert watched.with_gradient() is None


def test_kept_columns_are_limited() -> None:
    model = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(6))
    watched = Looking(model).watched()
    for number in range(1, 64):
        for place, parameter in enumerate(model):
            parameter.grad = torch.ones(1) if number >> place & 1 else None
        columns, gradients = watched.with_gradient()
        assert len(columns.parameters) == len(gradients) == number.bit_count()
    assert len(watched._columns) == _MOST_LAYOUTS


def test_it_is_known_who_never_received_a_gradient() -> None:
    looking = Looking(network())
    with_gradients(looking.model, "0.weight")
    looking.watched().with_gradient()
    assert looking.list.never_received == ("0.bias", "1.weight", "1.bias")
    looking.model.append(nn.Linear(1, 1))  # what is known is kept when the model grows
    with_gradients(looking.model, "1.bias", "2.weight")
    looking.watched().with_gradient()
    assert looking.list.never_received == ("0.bias", "1.weight", "2.bias")


@pytest.mark.parametrize("exact", [False, True])
def test_exactness_reaches_the_columns(exact) -> None:
    looking = Looking(nn.Linear(100, 100), exact=exact)
    with_gradients(looking.model)
    columns, _ = looking.watched().with_gradient()
    assert columns.layout.is_sampled.any() == (not exact)
