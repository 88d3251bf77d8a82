"""What is judged together: the model, groups, layers, output units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradguard.actions.clipping import clip_
from lightning_gradguard.remedies import ClipNorm, Moment, Scale, ScaleUnits
from lightning_gradguard.remedies.gradients import Gradients
from lightning_gradguard.remedies.segments import scale_by, segment_names, segment_norms
from tests.clipping_oracles import moment_of_layers

LAYERS = {
    "a.weight": torch.tensor([[3.0, 4.0], [0.0, 2.0]]),
    "a.bias": torch.tensor([1.0, 2.0]),
    "b.weight": torch.tensor([[5.0, 12.0]]),
    "c.scale": torch.tensor(7.0),
}
GROUPS = {"a.weight": 1, "a.bias": 0, "b.weight": 1, "c.scale": 0}
NAMES = {
    "model": ("model",),
    "group": ("group 1", "group 0"),
    "layer": ("a", "b", "c"),
    "unit": ("a.weight[0]", "a.weight[1]", "a.bias[0]", "b.weight[0]", "c.scale[0]"),
}
SQUARES = {
    "model": [29 + 5 + 169 + 49],
    "group": [29 + 169, 5 + 49],
    "layer": [34, 169, 49],
    "unit": [25, 4, 5, 169, 49],
}


def moment(**changes):
    return moment_of_layers({**LAYERS, **changes}, groups=GROUPS)


@pytest.mark.parametrize("per", NAMES)
def test_segments_have_names_and_norms(per) -> None:
    gradients = moment().gradients
    assert segment_names(gradients.roster, per) == NAMES[per]
    norms = segment_norms(gradients, per)
    np.testing.assert_allclose(norms.square(), SQUARES[per])


@pytest.mark.parametrize("per", NAMES)
def test_the_layout_of_a_roster_is_the_same_at_every_look(per) -> None:
    roster = moment().gradients.roster
    assert segment_names(roster, per) is segment_names(roster, per)


def test_what_has_no_gradient_is_nan_and_counts_nowhere() -> None:
    gradients = moment(**{"a.bias": None, "b.weight": None}).gradients
    expected = {
        "model": [29 + 49],
        "group": [29, 49],
        "layer": [29, np.nan, 49],
        "unit": [25, 4, np.nan, np.nan, 49],
    }
    for per, squares in expected.items():
        np.testing.assert_allclose(segment_norms(gradients, per).square(), squares)


@pytest.mark.parametrize("per", NAMES)
def test_without_any_gradient_every_norm_is_nan(per) -> None:
    gradients = moment(**dict.fromkeys(LAYERS)).gradients
    names = segment_names(gradients.roster, per)
    assert segment_norms(gradients, per).isnan().tolist() == [True] * len(names)
    assert gradients.norm.item() == 0.0


@pytest.mark.parametrize("per", NAMES)
def test_nan_in_one_segment_stays_there(per) -> None:
    norms = segment_norms(moment(**{"b.weight": torch.tensor([[1.0, torch.nan]])}).gradients, per)
    bad = {"model": [0], "group": [0], "layer": [1], "unit": [3]}[per]
    assert torch.nonzero(norms.isnan()).flatten().tolist() == bad


def test_factors_reach_the_members_of_their_segment() -> None:
    gradients = moment().gradients
    for per, expected in {"group": [0.1, 0.2, 0.1, 0.2], "layer": [0.1, 0.1, 0.2, 0.3]}.items():
        factors = torch.tensor([0.1, 0.2, 0.3])[: len(NAMES[per])]
        found = scale_by(gradients, per, factors, "x", segment_norms(gradients, per))
        assert isinstance(found, Scale)
        assert found.factors.tolist() == pytest.approx(expected)


def test_units_have_factors_and_norms_where_there_is_a_gradient() -> None:
    gradients = moment(**{"a.bias": None}).gradients
    factors = torch.linspace(0.1, 0.5, 5)
    found = scale_by(gradients, "unit", factors, "x", segment_norms(gradients, "unit"))
    assert isinstance(found, ScaleUnits)
    assert sorted(found.factors) == sorted(found.norms) == [0, 2, 3]
    assert found.factors[2].tolist() == pytest.approx([0.4])
    assert found.norms[0].tolist() == [5.0, 2.0]


@pytest.mark.parametrize("per", NAMES)
@pytest.mark.usefixtures("backend")
def test_every_segment_is_at_or_below_the_limit_afterwards(per) -> None:
    asked = moment(**{"a.bias": None})
    clip_(asked.gradients, ClipNorm(2.5, per=per).decide(asked))
    before = segment_norms(moment(**{"a.bias": None}).gradients, per)
    after = segment_norms(Gradients.of(asked.gradients.roster), per)
    np.testing.assert_allclose(after, before.clamp(max=2.5), rtol=1e-6)


def test_units_lie_along_the_dimension_that_is_said() -> None:
    gradient = torch.arange(24.0).reshape(2, 3, 4)
    asked = moment_of_layers({"t.weight": gradient.clone()}, units={"t.weight": 1})
    expected = gradient.movedim(1, 0).flatten(1).norm(dim=1)
    torch.testing.assert_close(segment_norms(asked.gradients, "unit").float(), expected)
    clip_(asked.gradients, ClipNorm(30.0, per="unit").decide(asked))
    after = gradient * (30.0 / expected).clamp(max=1.0).reshape(1, 3, 1)
    torch.testing.assert_close(asked.gradients.tensors[0], after)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), ()])
@pytest.mark.parametrize("per", NAMES)
def test_empty_and_single_gradients_are_no_trouble(shape, per) -> None:
    asked = moment_of_layers({"e.weight": torch.ones(shape), "a.weight": torch.ones(2, 2)})
    coefficient = clip_(asked.gradients, ClipNorm(0.5, per=per).decide(asked))
    assert 0.0 < coefficient.item() < 1.0
    for tensor in asked.gradients.tensors:
        assert tensor.isfinite().all()


def test_a_tied_parameter_counts_once() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([3.0, 4.0])
    roster = moment_of_layers({"a.w": weight.grad}).gradients.roster
    asked = Moment(step=0, gradients=Gradients.of(roster))
    assert segment_norms(asked.gradients, "layer").tolist() == [5.0]
