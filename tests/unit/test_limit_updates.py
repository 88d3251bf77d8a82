"""Steps that would move the weights too far are taken at a lower rate."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
import torch

from lightning_gradguard.remedies import LimitUpdates, Only
from tests.clipping_oracles import moment_of_layers
from tests.strategies import make_frame, through_json

LARGE = {f"l{i}.weight": torch.ones(12, 4) for i in range(3)}  # PyTorch would make each norm 2
FRESH = 2.0


def rate(remedy, *frames, layers=LARGE, step=1, own=()):
    """Return the factor of the step after some frames, of which the user's rates are `own`."""
    moment = moment_of_layers(layers, step=step, frames=frames, learning_rates=own)
    found = remedy.decide(moment)
    return found[0].factor if found else 1.0


def moved(ratio, *, lr_factor=1.0, weights=FRESH, **fields):
    """Return a step that changed each layer by a share of itself."""
    ratios = [ratio] * 3 if np.isscalar(ratio) else ratio
    gradients = [1.0] * len(ratios)
    return make_frame(
        0, gradients, weights=weights, update_ratio=ratios, lr_factor=lr_factor, **fields
    )


def test_the_first_step_is_small_and_is_no_cut() -> None:
    [held] = LimitUpdates(first_factor=0.05).decide(moment_of_layers(LARGE))
    assert (held.factor, held.is_cut) == (0.05, False)


def test_a_healthy_run_has_its_own_rate_from_the_second_step_on() -> None:
    remedy = LimitUpdates()
    assert rate(remedy, moved(0.0001, lr_factor=0.01)) == 1.0  # 0.01 at the full rate
    assert [rate(remedy, moved(0.01)) for _ in range(100)] == [1.0] * 100


def test_the_next_step_is_as_long_as_the_limit() -> None:
    # A full step would change it by 0.5: a fifth of one is allowed.
    assert rate(LimitUpdates(), moved(0.005, lr_factor=0.01)) == pytest.approx(0.2)


def test_a_rate_comes_back_by_halves_of_itself() -> None:
    remedy = LimitUpdates()
    rate(remedy, moved(0.005, lr_factor=0.01))
    factors = [rate(remedy, moved(1e-4, lr_factor=0.2)) for _ in range(5)]
    assert factors == pytest.approx([0.3, 0.45, 0.675, 1.0, 1.0])


def test_a_jump_of_the_schedule_is_known_before_its_first_step() -> None:
    remedy = LimitUpdates()
    rate(remedy, moved(1e-4, lr_factor=0.01, learning_rates=(0.1,)), own=(0.1,))
    quiet = moved(0.01, learning_rates=(0.1,))
    assert rate(remedy, quiet, own=(0.1,)) == 1.0
    # Twenty times 0.01 would change it by 0.2: half of that is allowed.
    assert rate(remedy, quiet, own=(2.0,)) == pytest.approx(0.5)
    assert rate(remedy, own=(2.0,), step=0) == pytest.approx(0.5)  # nothing new was seen
    assert rate(remedy, own=(0.1,), step=0) == 1.0


def test_a_warm_up_holds_nobody_back() -> None:
    remedy, factors, before = LimitUpdates(), [], (0.01,)
    for step in range(1, 101):
        own = (0.01 * step,)
        factors.append(rate(remedy, moved(1e-4 * step, learning_rates=before), own=own))
        before = own
    assert set(factors[1:]) == {1.0}


def test_long_strides_one_after_the_other_are_held_to_less() -> None:
    remedy, mean, factor = LimitUpdates(sustained=0.02, window=10), 0.0, 1.0
    for looks in range(1, 61):
        mean += (0.08 - mean) / min(looks, 10)
        factor = rate(remedy, moved(0.08, lr_factor=factor))
    allowed = 0.1 * 0.02 / mean
    assert mean == pytest.approx(0.08, rel=0.01)
    assert factor < allowed / 0.08  # and falls on, as this run does not answer to it


def test_weights_that_have_grown_do_not_excuse_longer_steps() -> None:
    remedy = LimitUpdates()
    rate(remedy, moved(0.001, weights=FRESH, lr_factor=0.01))
    grown = moved(0.05, weights=10 * FRESH, lr_factor=1.0)  # half of what it was in the beginning
    allowed = 0.1 * 0.03 / fmean([0.001, 0.5])
    assert rate(remedy, grown) == pytest.approx(allowed / 0.5, rel=1e-3)


def test_weights_that_go_on_growing_are_let_go_in_the_end() -> None:
    remedy, looks = LimitUpdates(), 0
    rate(remedy, moved(0.001, weights=FRESH, lr_factor=0.01))
    while rate(remedy, moved(0.02, weights=8 * FRESH)) < 1.0:  # healthy for what they are now
        looks += 1
    # Until 0.02 * 8 is at most sqrt(0.1 * 0.03) of it: 1.55 doublings.
    assert 4_620 < looks < 4_700


def test_layers_that_begin_next_to_zero_are_not_judged() -> None:
    remedy = LimitUpdates()
    new = moved([0.01, 9.0, 9.0], weights=[FRESH, 0.1, 1e-9])
    assert [rate(remedy, new) for _ in range(2)] == [1.0, 1.0]
    assert rate(LimitUpdates(), moved(9.0, weights=0.1)) == 1.0


def test_the_smaller_of_two_in_the_middle_counts() -> None:
    adapters = {f"l{i}.weight": torch.ones(12, 4) for i in range(4)}
    frame = moved([0.01, 0.01, 5.0, 5.0])
    assert rate(LimitUpdates(), frame, layers=adapters) == 1.0


def test_only_the_optimizers_own_layers_are_judged() -> None:
    layers = {"l0.weight": torch.ones(12, 4), "l1.weight": torch.ones(12, 4)}
    frame = moved([0.5, 0.5, 9.0, 9.0])  # l2 and l3 belong to somebody else
    assert rate(LimitUpdates(), frame, layers=layers) == pytest.approx(0.1 * 0.03 / 0.5 / 0.5)


def test_rows_may_be_parameters() -> None:
    frame = moved(0.5, layers=[f"l{i}.weight" for i in range(3)])
    assert rate(LimitUpdates(), frame) == pytest.approx(0.1 * 0.03 / 0.5 / 0.5)


def test_where_no_matrix_is_watched_nothing_is_held_back_after_the_first_step() -> None:
    remedy = LimitUpdates()
    frame = moved(0.5, layers=["norm", "other norm", "bias"])
    assert rate(remedy, frame) == 1.0
    assert rate(through_json(remedy, LimitUpdates())) == 1.0


def test_where_nothing_moves_there_is_nothing_to_hold_back() -> None:
    assert rate(LimitUpdates(), moved(0.0)) == 1.0


@pytest.mark.parametrize("frames", [[], [moved(math.nan)], [moved(0.5, stepped=False)]])
def test_without_a_look_the_rate_comes_back_all_the_same(frames) -> None:
    remedy = LimitUpdates()
    factors = [rate(remedy, *frames, step=step) for step in range(200)]
    assert factors[:1] == [0.01]
    assert factors[20] == pytest.approx(0.02)
    assert factors[-1] == 1.0


@pytest.mark.parametrize("shape", [(4,), (12, 4)])
def test_vectors_and_single_layers_are_left_alone(shape) -> None:
    assert rate(LimitUpdates(), layers={"l0.weight": torch.ones(shape)}, step=0) == 1.0


def test_a_line_search_teaches_only_once() -> None:
    remedy, frame = LimitUpdates(), moved(0.005, lr_factor=0.01)
    again = moment_of_layers(LARGE, step=1, frames=[frame], is_first_look=False)
    assert remedy.decide(again)[0].factor == 0.01


def test_it_goes_on_after_a_checkpoint() -> None:
    remedy, fresh = LimitUpdates(sustained=0.1), LimitUpdates(sustained=0.1)
    rate(remedy, moved(0.005, weights=FRESH, lr_factor=0.01))
    resumed = through_json(remedy, fresh)
    grown = moved(0.02, weights=10 * FRESH, lr_factor=0.2)  # a fifth of the beginning
    allowed = 0.1 * 0.1 / fmean([0.005, 0.2])
    assert rate(resumed, grown) == rate(remedy, grown) == pytest.approx(allowed, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LimitUpdates(0.0), "`largest` must be"),
        (lambda: LimitUpdates(sustained=0.2), "`sustained` must be at most `largest`, 0.1"),
        (lambda: LimitUpdates(window=0), "`window` must be"),
        (lambda: LimitUpdates(first_factor=1.0), "`first_factor` must be between 0 and 1"),
        (lambda: Only("l0", LimitUpdates()), "`remedy` must not be LimitUpdates"),
    ],
)
def test_wrong_numbers_are_refused(make, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
