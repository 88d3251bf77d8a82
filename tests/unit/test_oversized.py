"""Exploding at the update: a step as large as the weights that it changes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradguard.detectors import Oversized
from lightning_gradguard.findings import Severity
from tests.strategies import held, make_frame, stream

LAYERS = 8
EVEN = np.ones(LAYERS)


def oversized(**changes):
    return Oversized(**{"max_update_ratio": 1.0, **changes})


def moved(step, ratios=None, *, after=5, **fields):
    """From a step on, some layers move by a multiple of their size."""
    ratio = np.full(LAYERS, 1e-3)
    for layer, value in (ratios or {}).items() if step >= after else ():
        ratio[layer] = value
    return make_frame(step, EVEN, update_ratio=ratio, **fields)


def test_an_update_larger_than_the_weights_twice_in_a_row_is_an_explosion() -> None:
    found = held(oversized(), stream(7, lambda s: moved(s, {2: 4.0, 5: 2.0})))
    assert [f.step for f in found] == [6]
    assert (found[0].kind, found[0].rule) == ("exploding", "update as large as the weights")
    assert found[0].severity is Severity.CRITICAL
    assert found[0].layers == ("l2", "l5")
    assert (found[0].value, found[0].limit) == (4.0, 1.0)
    assert "changes l2 by 4.0 times" in found[0].message


def test_large_updates_with_a_pause_between_are_none() -> None:
    frames = stream(40, lambda s: moved(s, {0: 5.0} if s % 2 else {}))
    assert held(oversized(), frames) == []


def test_large_updates_of_changing_layers_are_none() -> None:
    frames = stream(40, lambda s: moved(s, {s % LAYERS: 5.0}))
    assert held(oversized(), frames) == []


def test_an_update_a_thousand_times_the_weights_is_one_at_once() -> None:
    found = held(oversized(), [moved(0, {3: 2000.0}, after=0)])
    assert [(f.step, f.layers) for f in found] == [(0, ("l3",))]
    assert "2.0e+03 times" in found[0].message


def test_an_update_that_half_of_the_layers_share_is_one_at_once() -> None:
    found = held(oversized(), stream(6, lambda s: moved(s, dict.fromkeys(range(5), 2.0))))
    assert [(f.step, len(f.layers)) for f in found] == [(5, 5)]
    assert held(oversized(), stream(6, lambda s: moved(s, {0: 2.0, 1: 2.0}))) == []


def test_the_first_steps_may_be_larger() -> None:
    """Optimizers that divide by what they have seen take steps of full size before they have."""
    young = {0: 1.5, 1: 1.5}
    frames = stream(20, lambda s: moved(s, young if s < 2 else {}, after=0))
    assert held(oversized(), frames) == []
    assert held(oversized(), stream(20, lambda s: moved(s, young, after=5)))


def test_an_update_without_limit_is_one_at_once() -> None:
    (found,) = held(oversized(), [make_frame(0, EVEN, update_ratio=math.inf)])
    assert found.value > 1e100
    assert len(found.layers) == LAYERS


def test_one_large_update_counts_if_the_loss_jumps_after_it() -> None:
    # Adam at a rate of 1: the first update is nine times the weights, the later ones are not.
    frames = [
        make_frame(0, update_ratio=(0.5, 9.0, 0.5, 0.5), loss=0.9),
        make_frame(1, update_ratio=0.7, loss=8.8e5),
    ]
    (finding,) = held(oversized(), frames)
    assert (finding.step, finding.layers, finding.value) == (1, ("l1",), 9.0)
    frames[1] = make_frame(1, update_ratio=0.7, loss=1.4)
    assert held(oversized(), frames) == []


def test_a_single_layer_may_take_one_long_step_to_where_it_belongs() -> None:
    frames = [make_frame(s, [1.0], update_ratio=9.0 if s == 0 else 0.5, loss=1.0) for s in range(9)]
    assert held(oversized(), frames) == []
    (found, *_) = held(oversized(), [make_frame(s, [1.0], update_ratio=9.0) for s in range(9)])
    assert found.step == 1


def test_a_loss_that_jumps_without_a_large_update_is_none() -> None:
    frames = stream(20, lambda s: moved(s, loss=1e6 if s == 10 else 1.0))
    assert held(oversized(), frames) == []


@pytest.mark.parametrize("role", ["norm", "embedding", "vectors", "container"])
def test_layers_that_have_no_place_in_depth_are_left_out(role) -> None:
    roles = (role, *["weights"] * (LAYERS - 1))
    frames = stream(20, lambda s: moved(s, {0: 5.0}, roles=roles))
    assert held(oversized(), frames) == []


def test_weights_that_start_at_zero_may_grow_by_momentum_and_warm_up() -> None:
    velocity, weight, frames = 0.0, 0.0, []
    for step in range(50):
        velocity = 0.9 * velocity + 1.0
        update = 1e-5 * (step + 1) * velocity
        ratio = update / weight if weight else 0.0
        frames.append(
            make_frame(step, weights=(1, 1, weight, 1), update_ratio=(1e-3, 1e-3, ratio, 1e-3))
        )
        weight += update
    assert held(oversized(), frames) == []


def test_weights_that_were_zero_long_ago_are_judged_again() -> None:
    def frame_at(step):
        weights = np.where(np.arange(LAYERS) == 2, 0.0 if step == 0 else 1.0, 1.0)
        return moved(step, {2: 5.0}, after=1, weights=weights)

    found = held(oversized(young_steps=10), stream(30, frame_at))
    assert {f.layers for f in found} == {("l2",)}
    assert found[0].step >= 10


def test_an_update_that_was_not_seen_is_none() -> None:
    frames = stream(20, lambda s: make_frame(s, EVEN, update_ratio=math.nan))
    assert held(oversized(), frames) == []


def test_weights_that_begin_next_to_nothing_are_as_young_as_those_at_zero() -> None:
    """As an output layer that is drawn from a deviation of a millionth, under Adam."""
    tiny = [1.0, 1.0, 1.0, 1e-6]
    frames = stream(
        10,
        lambda s: make_frame(
            s,
            weights=np.maximum(tiny, [0.0, 0.0, 0.0, 1e-3 * s]),
            update_ratio=[1e-3, 1e-3, 1e-3, 1e3 / (s + 1)],
        ),
    )
    assert held(oversized(), frames) == []
