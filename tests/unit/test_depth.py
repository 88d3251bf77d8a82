"""Gradients over depth: which layers are judged, in the model and in its branches."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.detectors.depth import depth_profile, judged, middle
from lightning_gradguard.roles import LEFT_OUT, Role
from tests.strategies import make_frame

SIDE_BY_SIDE = (*(f"left.{i}" for i in range(4)), *(f"right.{i}" for i in range(4)), "head")


def profile_of(gradients, **fields):
    profile = depth_profile(make_frame(0, gradients, **fields))
    assert profile is not None
    return profile


def test_profile_keeps_layers_with_weights_and_a_gradient() -> None:
    gradients = np.array([math.nan, 1e-3, 1.0, 0.0, 1.0])
    profile = profile_of(gradients, weights=(1.0, 1.0, 10.0, 1.0, 0.0), update_ratio=0.5)
    assert profile.layers == ("l1", "l2", "l3")
    np.testing.assert_allclose(profile.decades, [-3.0, -1.0, -math.inf])
    np.testing.assert_allclose(profile.update_ratio, [0.5] * 3)
    assert profile.spread == math.inf


@pytest.mark.parametrize("role", get_args(Role))
def test_only_layers_of_some_roles_have_a_place_in_it(role) -> None:
    roles = ("weights", role, "weights", "weights", "recurrent")
    frame = make_frame(0, [1.0, 1e-9, 1.0, 1.0, 1.0], roles=roles)
    profile = depth_profile(frame)
    assert profile is not None
    assert ("l1" in profile.layers) == (role not in LEFT_OUT)
    assert judged(frame).tolist() == [True, role not in LEFT_OUT, True, True, True]


def test_what_is_no_weight_matrix_or_whose_depth_is_unknown_is_left_out() -> None:
    assert set(LEFT_OUT) >= {"embedding", "norm", "vectors", "container"}
    assert not set(LEFT_OUT) & {"weights", "recurrent"}


def test_roles_may_change_from_frame_to_frame() -> None:
    for last in ("norm", "weights"):
        frame = make_frame(0, roles=("weights", "weights", "weights", last))
        assert judged(frame).tolist() == [True, True, True, last == "weights"]


def test_without_roles_all_layers_are_judged() -> None:
    assert judged(make_frame(0)).all()


@pytest.mark.parametrize(
    "fields",
    [
        {"bad": [1]},
        {"loss": math.nan},
        {"bias_only": [0, 1]},
        {"weights": [0.0, 0.0, 1.0, 1.0]},
        {"roles": ("norm", "embedding", "weights", "weights")},
        {"gradients": [math.nan] * 4},
    ],
    ids=["not finite", "loss not finite", "biases", "zero weights", "roles", "no gradients"],
)
def test_there_is_no_profile_of_less_than_three_layers_or_broken_numbers(fields) -> None:
    assert depth_profile(make_frame(0, **fields)) is None


def test_near_the_loss_is_the_last_quarter() -> None:
    assert profile_of(10.0 ** np.arange(12.0)).near_loss == pytest.approx(10.0)  # of 9, 10, 11


def test_spread_of_nothing_but_zeros_is_unknown_and_has_no_parts() -> None:
    profile = profile_of(np.zeros(4))
    assert math.isnan(profile.spread)
    assert list(profile.parts(1.0)) == []


def test_branches_side_by_side_have_profiles_of_their_own() -> None:
    gradients = np.array([1.0] * 4 + [1e-6, 1e-4, 1e-2, 1.0] + [1.0])
    profile = profile_of(gradients, layers=SIDE_BY_SIDE, update_ratio=gradients)
    whole, right = profile.parts(3.0)
    assert (whole.branch, whole.layers) == ("", SIDE_BY_SIDE)
    assert (right.branch, right.layers) == ("right", SIDE_BY_SIDE[4:8])
    np.testing.assert_allclose(right.decades, [-6.0, -4.0, -2.0, 0.0])
    np.testing.assert_allclose(right.update_ratio, gradients[4:8])
    assert right.index.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(
    "layers",
    [
        tuple(f"net.{i}" for i in range(5)),
        ("a.x", "a.y", "b.x", "b.y", "c"),
        ("a", "b", "c", "d", "e"),
    ],
    ids=["one module holds all", "two layers each", "no modules"],
)
def test_what_is_no_branch_has_no_profile_of_its_own(layers) -> None:
    gradients = 10.0 ** np.arange(5.0)
    assert [part.branch for part in profile_of(gradients, layers=layers).parts(1.0)] == [""]


def test_a_branch_under_two_names_is_judged_once() -> None:
    layers = (*(f"enc.body.{i}" for i in range(3)), "head.0", "head.1")
    parts = profile_of(10.0 ** np.arange(5.0), layers=layers).parts(1.0)
    assert [part.branch for part in parts] == ["", "enc"]


def test_branches_less_spread_out_than_asked_for_are_left_out() -> None:
    gradients = np.array([1e-2] * 4 + [1.0] * 5)
    profile = profile_of(gradients, layers=SIDE_BY_SIDE)
    assert [part.branch for part in profile.parts(1.0)] == [""]
    assert list(profile.parts(2.5)) == []


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_the_middle_is_the_median(numbers) -> None:
    assert middle(np.array(numbers)) == pytest.approx(float(np.median(numbers)))
