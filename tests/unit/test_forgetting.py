"""Vanishing over time: the early time steps of a recurrent layer get next to no gradient."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lightning_gradguard.detectors import Forgetting
from tests.strategies import held, make_frame, stream

FORGETFUL = np.logspace(-15.0, 0.0, 16)  # medians of the quarters: 5.5e-14 and 5.5e-2


def forgetting(**changes):
    return Forgetting(**{"limit_decades": 4.0, "warmup_steps": 30, "stall_blocks": 2, **changes})


def forgetful(step, *, loss=1.0, profile=FORGETFUL):
    return make_frame(step, loss=loss, time_profiles={"rnn": profile, "short": np.ones(3)})


def test_the_recurrent_layer_is_named_with_its_drop() -> None:
    found = held(forgetting(), stream(120, forgetful))
    assert {(f.kind, f.rule, f.layers) for f in found} == {("vanishing", "over time", ("rnn",))}
    assert found[0].value == pytest.approx(12.0)
    assert found[0].limit == 4.0
    assert found[0].step >= 30


def test_what_is_lost_per_step_is_said_and_how_far_back_that_reaches() -> None:
    """FORGETFUL loses one decade per step: 4 steps back a gradient is 0.01 % of what it was."""
    found = held(forgetting(), stream(120, forgetful))[0]
    assert "falls 1 decades per time step: steps older than 4 get less than 0.01 %" in found.message


def test_states_tell_more_of_memory_than_inputs_and_the_best_layer_counts() -> None:
    def looked_inside(step):
        steps = np.arange(7.0, 64.0, 8.0)
        nothing = np.full(8, np.nan)
        profiles = {
            "rnn/l0": np.stack([steps, nothing, 10.0 ** (-0.5 * (63.0 - steps))]),
            "rnn/l1": np.stack([steps, nothing, 10.0 ** (-0.2 * (63.0 - steps))]),
        }
        more = {"hidden_profiles": profiles if step % 50 == 0 else {}}
        return make_frame(step, loss=1.0, time_profiles={"rnn": FORGETFUL}, **more)

    found = held(forgetting(), stream(120, looked_inside))[0]
    assert "falls 0.2 decades per time step: steps older than 20 get" in found.message


@pytest.mark.parametrize(
    "frame_at",
    [
        lambda s: forgetful(s, loss=2.0 * 0.99**s),
        lambda s: forgetful(s, profile=np.ones(16)),
        lambda s: forgetful(s, profile=FORGETFUL[::-1]),
        lambda s: forgetful(s, profile=FORGETFUL if s % 3 == 0 else np.ones(16)),
        lambda s: forgetful(s) if s == 100 else make_frame(s),
        lambda s: forgetful(s, loss=None),
    ],
    ids=["the loss falls", "it remembers", "it grows", "now and then", "one sample", "no loss"],
)
def test_what_only_looks_like_it_is_left_alone(frame_at) -> None:
    assert held(forgetting(), stream(300, frame_at)) == []


def test_nothing_is_said_during_warm_up() -> None:
    long = np.logspace(-8.0, 0.0, 100)  # 0.08 decades per time step: gates that are half open
    frames = stream(300, lambda s: forgetful(s, profile=long))
    assert held(forgetting(warmup_steps=300), frames) == []


def test_gates_that_are_shut_need_no_warm_up() -> None:
    """Half open, they lose 0.3 decades per time step; here it is one."""
    found = held(forgetting(warmup_steps=10**6), stream(300, forgetful))
    assert found
    assert found[0].layers == ("rnn",)


def test_one_short_sequence_does_not_make_gates_look_shut() -> None:
    def frame_at(step):
        length = 20 if step % 19 == 18 else 300
        return forgetful(step, profile=np.logspace(-9.0, 0.0, length))

    assert held(forgetting(warmup_steps=10**6), stream(300, frame_at)) == []


@pytest.mark.parametrize(("role", "found"), [("recurrent", True), ("gated", False)])
def test_layers_without_gates_need_no_warm_up(role, found) -> None:
    """An untrained LSTM or GRU looks vanished over time, and learns all the same."""
    roles = ("weights", role, "weights", "weights")
    profile = np.logspace(-8.0, 0.0, 100)

    def frame_at(step):
        return make_frame(step, roles=roles, time_profiles={"l1": profile})

    assert bool(held(forgetting(warmup_steps=10**6), stream(200, frame_at))) == found


def test_a_profile_with_nan_is_not_learned() -> None:
    rule = forgetting()
    broken = np.append(FORGETFUL[:-1], math.nan)
    assert held(rule, stream(300, lambda s: forgetful(s, profile=broken))) == []
    json.dumps(rule.state_dict(), allow_nan=False)


def test_a_stall_of_no_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="`stall_blocks` must be positive, got 0"):
        forgetting(stall_blocks=0)
