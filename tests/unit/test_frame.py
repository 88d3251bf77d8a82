"""Numbers of a frame that are made from others."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from tests.strategies import make_frame

NAN = math.nan


def test_update_ratio_is_update_over_weights() -> None:
    frame = make_frame(gradients=(6.0, 1.0), weights=(2.0, 5.0), update_ratio=(0.5, 0.1))
    np.testing.assert_allclose(frame.update_norm, [1.0, 0.5])
    np.testing.assert_allclose(frame.update_ratio, [0.5, 0.1])
    np.testing.assert_allclose(frame.weight_update_ratio, [0.5, 0.1])
    np.testing.assert_allclose(frame.weight_grad_ratio, [3.0, 0.2])


def test_ratio_to_weights_that_are_zero_or_unknown_is_nan() -> None:
    frame = make_frame(gradients=(1.0, 1.0), weights=(0.0, NAN))
    assert np.isnan(frame.update_ratio).all()
    assert np.isnan(frame.weight_grad_ratio).all()


def test_layer_without_a_weight_matrix_has_no_weight_ratio() -> None:
    frame = make_frame(gradients=(1.0, 1.0), bias_only=[1])
    assert np.isnan(frame.weight_update_ratio).tolist() == [False, True]
    assert np.isnan(frame.update_ratio).tolist() == [False, False]


@pytest.mark.parametrize(
    ("before", "after", "coefficient"),
    [
        (4.0, 1.0, 0.25),
        (4.0, 4.0, 1.0),
        (4.0, 5.0, 1.0),
        (4.0, 0.0, 0.0),
        (0.0, 0.0, 1.0),
        (4.0, None, None),
        (math.inf, 1.0, None),
        (4.0, NAN, None),
    ],
)
def test_clip_coefficient_is_what_the_norm_was_multiplied_by(before, after, coefficient) -> None:
    frame = make_frame(global_grad_norm=before, global_grad_norm_at_update=after)
    assert frame.clip_coefficient == coefficient


def test_grad_ratio_is_gradient_over_weights() -> None:
    frame = make_frame(gradients=(6.0, 1.0, 2.0), weights=(2.0, 5.0, 0.0))
    np.testing.assert_allclose(frame.grad_ratio, [3.0, 0.2, NAN])


def test_in_a_short_window_clipping_is_told_from_the_correction() -> None:
    # The mean over one batch of four is 8; the optimizer was to use 2 and used 1.
    frame = make_frame(
        global_grad_norm=8.0,
        global_grad_norm_at_update=1.0,
        accumulated_batches=1,
        window_correction=4.0,
    )
    assert frame.clip_coefficient == 0.5


@pytest.mark.parametrize("loss", [NAN, math.inf, -math.inf])
def test_broken_loss_makes_a_frame_nonfinite(loss) -> None:
    assert make_frame(loss=loss).has_nonfinite


def test_one_broken_layer_makes_a_frame_nonfinite() -> None:
    assert make_frame(bad=[2]).has_nonfinite
    assert make_frame(bad=[2], loss=None).has_nonfinite


def test_layers_without_gradient_do_not_make_a_frame_nonfinite() -> None:
    unknown = np.array([0.0, NAN, 0.0, 0.0])
    assert not make_frame(num_nonfinite=unknown, loss=None).has_nonfinite


def test_frame_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        make_frame().step = 3  # type: ignore[misc]  # that is the point


def test_frames_share_no_profile_by_accident() -> None:
    assert dict(make_frame().time_profiles) == {}
