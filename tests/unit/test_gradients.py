"""Gradients as remedies see them: exact norms of anything that torch calls a gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradguard.remedies.gradients import (
    Gradients,
    Known,
    Member,
    Roster,
    measure_squares,
    weight_unit_norms,
)
from tests.clipping_oracles import moment_of_layers, roster_of_layers

DENSE = torch.tensor([[3.0, 4.0], [0.0, 0.0], [5.0, 12.0]])
KINDS = {
    "float32": DENSE,
    "float16": DENSE.half(),
    "bfloat16": DENSE.bfloat16(),
    "float64": DENSE.double(),
    "transposed": DENSE.T.contiguous().T,
    "sparse": DENSE.to_sparse(1),
    "sparse in parts": torch.sparse_coo_tensor(
        [[0, 2, 2]],
        torch.tensor([[3.0, 4.0], [2.0, 5.0], [3.0, 7.0]]),
        (3, 2),
        check_invariants=True,
    ),
    "complex": DENSE * torch.tensor(0.6 + 0.8j),
}


@pytest.mark.parametrize("gradient", KINDS.values(), ids=KINDS)
@pytest.mark.usefixtures("backend")
def test_the_norm_of_any_gradient_is_that_of_its_entries(gradient) -> None:
    found = moment_of_layers({"a.w": gradient}).gradients
    assert found.norm.item() == pytest.approx(math.sqrt(25 + 169))
    assert found.unit_norms(0).tolist() == pytest.approx([5.0, 0.0, 13.0])


@pytest.mark.parametrize("size", [1e20, 1e-25, 1e38])
def test_norms_of_finite_values_neither_overflow_nor_vanish(size) -> None:
    gradient = torch.full((3, 4), size)
    found = moment_of_layers({"a.w": gradient}).gradients
    assert found.norm.item() == pytest.approx(size * math.sqrt(12.0))
    assert found.unit_norms(0).tolist() == pytest.approx([2.0 * size] * 3)


def test_what_a_scaler_left_in_the_gradients_is_taken_out() -> None:
    scale = torch.tensor(1024.0)
    layers = {"a.w": 1024.0 * DENSE, "b.w": 1024.0 * torch.tensor([2.0])}
    found = moment_of_layers(layers, scale=scale).gradients
    assert found.squares.tolist() == pytest.approx([194.0, 4.0])
    assert found.unit_norms(0).tolist() == pytest.approx([5.0, 0.0, 13.0])


def test_parameters_without_a_gradient_count_nowhere() -> None:
    found = moment_of_layers({"a.w": None, "b.w": DENSE, "c.w": None}).gradients
    assert found.present == [1]
    assert found.norm.item() == pytest.approx(math.sqrt(194.0))
    np.testing.assert_allclose(found.squares, [np.nan, 194.0, np.nan])


def test_without_any_gradient_the_norm_is_zero() -> None:
    found = moment_of_layers({"a.w": None, "b.w": None}).gradients
    assert (found.present, found.norm.item()) == ([], 0.0)
    assert found.squares.isnan().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_entry_that_is_not_finite_shows_in_the_norm(bad) -> None:
    found = moment_of_layers({"a.w": torch.tensor([1.0, bad]), "b.w": DENSE}).gradients
    assert not found.norm.isfinite()


def known_of(roster, squares):
    parameters = [member.parameter for member in roster.members]
    order = list(reversed(range(len(parameters))))
    return Known(
        [parameters[i] for i in order],
        torch.tensor([squares[i] for i in order], dtype=torch.double),
    )


def test_numbers_that_are_known_are_looked_up_whatever_their_order() -> None:
    roster = roster_of_layers({"a.w": DENSE, "b.w": torch.ones(2), "c.w": torch.ones(3)})
    found = Gradients.of(roster, known=known_of(roster, [7.0, 8.0, 9.0]))
    assert found.squares.tolist() == [7.0, 8.0, 9.0]
    with_scale = Gradients.of(
        roster, known=known_of(roster, [7.0, 8.0, 9.0]), scale=torch.tensor(2.0)
    )
    assert with_scale.squares.tolist() == [7.0, 8.0, 9.0]


def test_known_numbers_of_parameters_without_a_gradient_are_left_out() -> None:
    roster = roster_of_layers({"a.w": DENSE, "b.w": None, "c.w": torch.ones(3)})
    found = Gradients.of(roster, known=known_of(roster, [7.0, 8.0, 9.0]))
    np.testing.assert_allclose(found.squares, [7.0, np.nan, 9.0])


def test_where_a_number_is_missing_all_are_measured() -> None:
    roster = roster_of_layers({"a.w": DENSE, "b.w": torch.ones(2)})
    part = Known([roster.members[0].parameter], torch.tensor([7.0], dtype=torch.double))
    assert Gradients.of(roster, known=part).squares.tolist() == [194.0, 2.0]
    nobody = roster_of_layers({"a.w": None})
    assert Gradients.of(nobody, known=part).squares.isnan().all()


def test_measuring_is_exact_in_any_mixture_of_dtypes() -> None:
    tensors = list(KINDS.values())
    assert measure_squares(tensors).tolist() == pytest.approx([194.0] * len(tensors))


def test_the_norm_of_a_units_weights_lies_along_its_dimension() -> None:
    weight = nn.Parameter(DENSE.clone())
    assert weight_unit_norms(Member(weight, "a.w", "a")).tolist() == [5.0, 0.0, 13.0]
    columns = weight_unit_norms(Member(weight, "a.w", "a", unit_dim=1))
    np.testing.assert_allclose(columns.square(), [34.0, 160.0])
    assert weight_unit_norms(Member(nn.Parameter(torch.tensor(2.0)), "s", "")).tolist() == [2.0]


def test_indices_are_copied_to_the_device_only_once_but_not_kept_without_end() -> None:
    roster = Roster((Member(nn.Parameter(torch.zeros(1)), "w", "layer"),))
    first = roster.index([0, 0])
    assert roster.index((0, 0)) is first
    for number in range(200):
        assert roster.index([number]).tolist() == [number]
    assert len(roster._tables) <= 64
