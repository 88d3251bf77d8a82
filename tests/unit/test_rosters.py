"""Who an optimizer's parameters are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.remedies import LearningRate
from lightning_gradguard.remedies.fit import check_fit
from lightning_gradguard.rosters import roster_of
from lightning_gradguard.scope import ELSEWHERE


def members_of(model, *groups, calls=None):
    groups = groups or (list(model.parameters()),)
    optimizer = torch.optim.SGD([{"params": list(group)} for group in groups], lr=0.1)
    return roster_of(model, optimizer, calls or {}).members


def heads(members):
    return [member.name for member in members if member.is_head]


def test_members_come_in_the_order_of_the_groups_with_their_names() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    members = members_of(model, model[1].parameters(), model[0].parameters())
    assert [(m.name, m.layer, m.group) for m in members] == [
        ("1.weight", "1", 0),
        ("1.bias", "1", 0),
        ("0.weight", "0", 1),
        ("0.bias", "0", 1),
    ]
    assert members[0].parameter is model[1].weight


def test_the_head_is_the_last_matrix_and_what_belongs_to_its_layer() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.LayerNorm(3))
    assert heads(members_of(model)) == ["1.weight", "1.bias"]


def test_the_head_is_told_by_who_was_called_last() -> None:
    model = nn.ModuleDict({"head": nn.Linear(3, 1), "body": nn.Linear(2, 3)})
    assert heads(members_of(model)) == ["body.weight", "body.bias"]
    calls = {"body": 0, "head": 1}
    assert heads(members_of(model, calls=calls)) == ["head.weight", "head.bias"]


def test_a_single_layer_is_no_head() -> None:
    assert heads(members_of(nn.Linear(2, 1))) == []
    assert heads(members_of(nn.LayerNorm(3))) == []


def test_the_head_need_not_belong_to_this_optimizer() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    assert heads(members_of(model, model[0].parameters())) == []


@pytest.mark.parametrize(
    ("layer", "unit_dim"),
    [(nn.Linear(2, 3), 0), (nn.Conv2d(2, 3, 1), 0), (nn.ConvTranspose2d(2, 3, 1), 1)],
)
def test_output_units_lie_where_the_module_has_them(layer, unit_dim) -> None:
    assert members_of(nn.Sequential(layer))[0].unit_dim == unit_dim


def test_where_rows_are_no_units_they_lie_along_the_first_dimension() -> None:
    assert members_of(nn.Sequential(nn.LSTM(2, 3)))[0].unit_dim == 0


def test_parameters_that_the_model_does_not_have_are_members_all_the_same() -> None:
    model, stranger = nn.Linear(2, 1), nn.Parameter(torch.ones(2))
    *_, last = members_of(model, model.parameters(), [stranger])
    assert (last.name, last.layer, last.group, last.is_head) == (ELSEWHERE, ELSEWHERE, 1, False)
    assert last.parameter is stranger


def test_tied_weights_are_one_member() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(4, 3), "out": nn.Linear(3, 4, bias=False)})
    model["out"].weight = model["embed"].weight
    (member,) = members_of(model)
    assert member.parameter is model["embed"].weight


def test_a_parameter_group_that_is_empty_is_counted_too() -> None:
    model = nn.Linear(2, 2)
    groups = [{"params": model.parameters()}, {"params": []}]
    roster = roster_of(model, torch.optim.SGD(groups, lr=0.1), {})
    assert roster.num_groups == 2
    check_fit(LearningRate(0.5, groups=[1]), roster)
