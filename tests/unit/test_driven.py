"""Updates without the part that only shrinks the weights, held to a simulation in float64."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from lightning_gradguard.detectors.driven import DrivenUpdates
from tests.strategies import make_frame, through_json

SIZE = 4000


def simulated(decay, learning, steps=10, *, layers=3):
    """Shrink weights by a share and move them at a right angle to themselves by another.

    Returns:
        Frames of the norms, as they are measured, and the share that was learning.
    """
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(layers, SIZE))
    frames = []
    for step in range(steps):
        norm = np.linalg.norm(weights, axis=1)
        turn = rng.normal(size=weights.shape)
        along = np.sum(turn * weights, axis=1) / norm**2
        turn -= along[:, None] * weights
        turn *= (norm / np.linalg.norm(turn, axis=1))[:, None]
        update = learning * turn - decay * weights
        ratio = np.linalg.norm(update, axis=1) / norm
        frames.append(make_frame(step, np.ones(layers), weights=norm, update_ratio=ratio))
        weights = weights + update
    return frames


def last_ratio(frames):
    driven = DrivenUpdates()
    for frame in frames:
        driven.remember(frame)
    return driven.ratio()


@pytest.mark.parametrize("decay", [1e-4, 1e-2, 0.3])
def test_of_weights_that_only_decay_nothing_is_left(decay) -> None:
    np.testing.assert_array_equal(last_ratio(simulated(decay, 0.0)), 0.0)


@pytest.mark.parametrize(("decay", "learning"), [(1e-2, 5e-3), (1e-1, 3e-2), (1e-3, 4e-4)])
def test_where_decay_prevails_what_is_left_is_the_learning(decay, learning) -> None:
    left = last_ratio(simulated(decay, learning))
    whole = math.hypot(decay, learning)
    # A tenth of the whole update, in quadrature, is put down to rounding.
    np.testing.assert_allclose(np.hypot(left, 0.1 * whole), learning, rtol=0.1)


@pytest.mark.parametrize(("decay", "learning"), [(0.0, 1e-2), (1e-4, 1e-2), (5e-3, 1e-2)])
def test_where_learning_prevails_the_update_is_whole(decay, learning) -> None:
    np.testing.assert_allclose(
        last_ratio(simulated(decay, learning)), math.hypot(decay, learning), rtol=1e-6
    )


@pytest.mark.parametrize("growth", [-1e-2, -1e-4])
def test_weights_that_grow_are_moved_by_the_whole_update(growth) -> None:
    np.testing.assert_allclose(last_ratio(simulated(growth, 0.0)), -growth, rtol=1e-6)


def test_layers_are_told_apart() -> None:
    decays = np.array([1e-2, 0.0, -1e-2])
    norms = [(1.0 - decays) ** step for step in range(3)]
    frames = [make_frame(s, np.ones(3), weights=norms[s], update_ratio=1e-2) for s in range(3)]
    np.testing.assert_allclose(last_ratio(frames), [0.0, 1e-2, 1e-2])


def test_without_the_step_before_the_update_is_whole() -> None:
    frames = simulated(1e-2, 0.0)
    for seen in ([frames[3]], [*frames[:4], make_frame(4, np.ones(5))]):
        np.testing.assert_array_equal(last_ratio(seen), seen[-1].weight_update_ratio)
    assert DrivenUpdates().ratio().size == 0


@pytest.mark.parametrize("every", [2, 3, 7])
@pytest.mark.parametrize(("decay", "learning"), [(1e-2, 0.0), (1e-2, 5e-3), (0.0, 1e-2)])
def test_where_steps_are_left_out_the_shrinking_is_spread_over_them(every, decay, learning) -> None:
    frames = simulated(decay, learning, steps=50)[::every]
    thinned = [dataclasses.replace(frame) for frame in frames]
    all_seen = last_ratio(simulated(decay, learning, steps=50))
    np.testing.assert_allclose(last_ratio(thinned), all_seen, rtol=0.05, atol=1e-3 * decay)


def test_what_was_not_measured_stays_unknown() -> None:
    frames = [make_frame(s, np.ones(2), update_ratio=[math.nan, 0.1]) for s in range(2)]
    ratio = last_ratio(frames)
    assert math.isnan(ratio[0])
    assert ratio[1] == 0.1


@pytest.mark.parametrize("stop", [1, 2, 5, 9])
def test_stopping_between_steps_changes_nothing(stop) -> None:
    frames = simulated(1e-2, 3e-3)
    first = DrivenUpdates()
    for frame in frames[:stop]:
        first.remember(frame)
    second = through_json(first, DrivenUpdates())
    for frame in frames[stop:]:
        second.remember(frame)
    np.testing.assert_array_equal(second.ratio(), last_ratio(frames))


def test_nan_never_enters_the_state() -> None:
    driven = DrivenUpdates()
    driven.remember(make_frame(0, [1.0, 1.0], weights=[0.0, 1.0], update_ratio=[1.0, math.nan]))
    json.dumps(driven.state_dict(), allow_nan=False)
