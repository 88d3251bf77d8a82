"""Sums per tensor become numbers per layer, as numpy would have them from the tensors."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradguard.assemble import Layout, StepContext, assemble
from lightning_gradguard.schema import HISTOGRAM_BINS

RNG = np.random.default_rng(0)
# Two tensors of "a", one of "b"; "c" has no gradient at all.
GRADIENTS = [RNG.normal(size=(3, 4)), RNG.normal(size=3), RNG.normal(size=5)]
WEIGHTS = [RNG.normal(size=(3, 4)), RNG.normal(size=3), RNG.normal(size=5)]
UPDATES = [0.01 * g for g in GRADIENTS]
CONTEXT = StepContext(step=7, epoch=2, batch_idx=3, optimizer_index=1, learning_rates=(0.1, 0.2))


def squares(tensors):
    return np.array([float((tensor**2).sum()) for tensor in tensors])


def layout(**changes):
    sizes = np.array([12.0, 3.0, 5.0])
    fields = {
        "layers": ("a", "b", "c"),
        "row": np.array([0, 0, 1]),
        "size": sizes,
        "stored": sizes,
        "is_weight": np.array([True, False, False]),
        "is_sampled": np.array([True, False, False]),
    }
    return Layout(**{**fields, **changes})


def sums(**changes):
    fields = {
        "squares": squares(GRADIENTS),
        "total": np.array([g.sum() for g in GRADIENTS]),
        "abs_max": np.array([np.abs(g).max() for g in GRADIENTS]),
        "zeros": np.array([2.0, 1.0, 0.0]),
        "nonfinite": np.zeros(3),
        "param_squares": squares(WEIGHTS),
    }
    return {**fields, **changes}


def made(the_layout=None, *, stepped=True, **changes):
    return assemble(the_layout or layout(), sums(**changes), CONTEXT, stepped=stepped)


def norms(a, b):
    return [np.linalg.norm(a), np.linalg.norm(b), np.nan]


A, B = np.concatenate([g.ravel() for g in GRADIENTS[:2]]), GRADIENTS[2]


def test_norms_of_a_layer_are_those_of_its_tensors_joined() -> None:
    frame = made()
    np.testing.assert_allclose(frame.grad_norm, norms(A, B))
    rms = [np.sqrt(np.mean(A**2)), np.sqrt(np.mean(B**2)), np.nan]
    np.testing.assert_allclose(frame.grad_rms, rms)
    np.testing.assert_allclose(frame.grad_mean, [A.mean(), B.mean(), np.nan])
    np.testing.assert_allclose(frame.grad_std, [A.std(), B.std(), np.nan])
    np.testing.assert_allclose(frame.grad_abs_max, [np.abs(A).max(), np.abs(B).max(), np.nan])
    joined = np.concatenate([w.ravel() for w in WEIGHTS[:2]])
    np.testing.assert_allclose(frame.param_norm, norms(joined, WEIGHTS[2]))
    assert frame.global_grad_norm == pytest.approx(np.linalg.norm(np.concatenate([A, B])))


def test_squared_layer_norms_add_up_to_the_squared_global_norm() -> None:
    frame = made()
    assert np.nansum(frame.grad_norm**2) == pytest.approx(frame.global_grad_norm**2)


def test_weight_numbers_leave_biases_out() -> None:
    frame = made(update_squares=squares(UPDATES))
    matrix = [np.linalg.norm(GRADIENTS[0]), np.nan, np.nan]
    np.testing.assert_allclose(frame.weight_grad_norm, matrix)
    np.testing.assert_allclose(frame.weight_param_norm[0], np.linalg.norm(WEIGHTS[0]))
    np.testing.assert_allclose(frame.weight_update_norm[0], np.linalg.norm(UPDATES[0]))


def test_layer_without_gradient_is_nan_in_every_number_and_never_zero() -> None:
    frame = made(
        update_squares=squares(UPDATES), histogram=np.ones((3, HISTOGRAM_BINS)), stepped=True
    )
    numbers = [
        frame.grad_norm,
        frame.grad_rms,
        frame.grad_mean,
        frame.grad_std,
        frame.grad_ratio,
        frame.grad_abs_max,
        frame.zero_fraction,
        frame.num_nonfinite,
        frame.param_norm,
        frame.update_norm,
        frame.weight_grad_norm,
        frame.weight_param_norm,
        frame.weight_update_norm,
        frame.update_ratio,
    ]
    assert all(np.isnan(vector[2]) for vector in numbers)
    assert frame.log2_histogram is not None
    assert np.isnan(frame.log2_histogram[2]).all()


def test_update_ratio_is_update_norm_over_weight_norm() -> None:
    frame = made(update_squares=squares(UPDATES))
    joined = np.concatenate([w.ravel() for w in WEIGHTS[:2]])
    expected = [
        0.01 * np.linalg.norm(A) / np.linalg.norm(joined),
        0.01 * np.linalg.norm(B) / np.linalg.norm(WEIGHTS[2]),
    ]
    np.testing.assert_allclose(frame.update_ratio[:2], expected)


def test_step_that_was_not_made_has_an_update_of_zero() -> None:
    frame = made(stepped=False, update_squares=squares(UPDATES))
    np.testing.assert_array_equal(frame.update_norm, [0.0, 0.0, np.nan])
    np.testing.assert_array_equal(frame.weight_update_norm, [0.0, np.nan, np.nan])
    assert not frame.stepped


def test_update_that_nobody_saw_is_nan() -> None:
    assert np.isnan(made().update_norm).all()
    assert made().stepped


def test_entries_that_a_sparse_gradient_does_not_store_are_zeros() -> None:
    frame = made(layout(stored=np.array([4.0, 3.0, 5.0])))
    assert frame.zero_fraction[0] == pytest.approx((2 + 1 + (12 - 4)) / 15)
    assert frame.zero_fraction[1] == 0.0


def test_they_are_zeros_of_the_histogram_too() -> None:
    counts = np.zeros((3, HISTOGRAM_BINS))
    counts[:, 0], counts[:, 90] = [2.0, 1.0, 0.0], [2.0, 2.0, 5.0]
    frame = made(layout(stored=np.array([4.0, 3.0, 5.0])), histogram=counts)
    assert frame.log2_histogram is not None
    assert frame.log2_histogram[:2, 0].tolist() == [2 + 1 + (12 - 4), 0]
    assert frame.log2_histogram[:2].sum(axis=1).tolist() == [15, 5]
    assert frame.log2_histogram[0, 0] / 15 == frame.zero_fraction[0]


def test_what_arrived_is_left_as_it_was() -> None:
    arrived = sums(histogram=np.ones((3, HISTOGRAM_BINS)), squares_at_update=squares(GRADIENTS))
    before = {name: array.copy() for name, array in arrived.items()}
    assemble(layout(stored=np.array([4.0, 3.0, 5.0])), arrived, CONTEXT, stepped=True)
    for name, array in before.items():
        np.testing.assert_array_equal(arrived[name], array)


@pytest.mark.parametrize("number", [0.1, 1.3, -7.7])
def test_a_constant_gradient_has_no_spread_however_it_is_rounded(number) -> None:
    constant = [np.full(g.shape, number) for g in GRADIENTS]
    frame = made(squares=squares(constant), total=np.array([g.sum() for g in constant]))
    np.testing.assert_allclose(frame.grad_std[:2], 0.0, atol=1e-6)  # of 1.3, less than nothing


def test_a_layer_is_sampled_if_one_of_its_tensors_is() -> None:
    assert made().is_sampled.tolist() == [True, False, False]


def test_a_short_window_scales_the_loss_and_tells_the_coefficient() -> None:
    # The sums are those of the mean already; what the optimizer used was a quarter of it.
    context = StepContext(step=0, accumulated_batches=1, window_batches=4)
    used = squares(GRADIENTS) / 16.0
    arrived = sums(loss=np.array(0.25), squares_at_update=used)
    frame = assemble(layout(), arrived, context, stepped=True)
    assert (frame.window_correction, frame.accumulated_batches) == (4.0, 1)
    assert frame.loss == 1.0
    assert frame.global_grad_norm_at_update == pytest.approx(frame.global_grad_norm / 4.0)
    assert frame.clip_coefficient == pytest.approx(1.0)


def test_the_first_batchs_norm_is_the_root_of_its_squares() -> None:
    assert made(first_batch_squares=np.float64(9.0)).first_batch_grad_norm == 3.0
    assert made().first_batch_grad_norm is None


def test_nonfinite_entries_add_up_and_nan_is_the_largest() -> None:
    frame = made(nonfinite=np.array([1.0, 2.0, 0.0]), abs_max=np.array([np.nan, 1.0, np.inf]))
    np.testing.assert_array_equal(frame.num_nonfinite, [3.0, 0.0, np.nan])
    np.testing.assert_array_equal(frame.grad_abs_max, [np.nan, np.inf, np.nan])


def test_clipping_shows_in_the_norm_at_the_update_and_in_the_clipped_share() -> None:
    before = squares(GRADIENTS)
    frame = made(squares_at_update=before * 0.25**2, clipped=np.array([12.0, 3.0, 0.0]))
    assert frame.clip_coefficient == pytest.approx(0.25)
    assert frame.clipped_fraction == pytest.approx(15 / 20)


def test_what_was_not_measured_is_none() -> None:
    frame = made()
    unknown = (
        frame.loss,
        frame.global_grad_norm_at_update,
        frame.clip_coefficient,
        frame.clipped_fraction,
        frame.log2_histogram,
    )
    assert unknown == (None,) * 5
    assert dict(frame.time_profiles) == {}


def test_histograms_of_a_layers_tensors_add_up() -> None:
    counts = RNG.integers(0, 9, size=(3, HISTOGRAM_BINS)).astype(float)
    frame = made(histogram=counts)
    assert frame.log2_histogram is not None
    np.testing.assert_array_equal(frame.log2_histogram[:2], [counts[0] + counts[1], counts[2]])


def test_loss_and_time_profiles_come_as_numbers_people_know() -> None:
    frame = made(**{"loss": np.array(1.5), "time/rnn.0": np.array([1e-40, 4.0])})
    assert frame.loss == 1.5
    assert list(frame.time_profiles) == ["rnn.0"]
    np.testing.assert_allclose(frame.time_profiles["rnn.0"], [1e-20, 2.0])


def test_the_context_is_handed_on() -> None:
    frame = made()
    assert (frame.step, frame.epoch, frame.batch_idx, frame.optimizer_index) == (7, 2, 3, 1)
    assert frame.learning_rates == (0.1, 0.2)
