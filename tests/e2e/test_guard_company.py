"""Two guards of one trainer, and what clipping adds to what watching costs."""

from __future__ import annotations

import pytest
import torch

from lightning_gradguard import GradientMonitor, devices
from lightning_gradguard.remedies import AGC, LearningRate, OnceSlowed, Only
from tests.e2e.guard_cases import (
    From,
    assert_same,
    classifier,
    done,
    guard,
    normed,
    train,
    with_factor,
)
from tests.e2e.models import random_data
from tests.e2e.test_host_syncs import MODES as SYNC_MODES
from tests.e2e.test_host_syncs import waits

SLOW = LearningRate(0.5, "asked")


# Two guards.


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({"clip": 1.0}, {"clip": "robust"}, "clip"),
        ({"clip": 1.0}, {"clip": {"network.0": "agc"}}, "clip"),
        ({"on_nonfinite": "skip"}, {"on_exploding": "skip"}, "skip"),
        ({"on_exploding": "reduce_lr"}, {"on_diverging": "rollback"}, "learning rate"),
        ({"on_nonfinite": "stop"}, {"on_diverging": "raise"}, "stop"),
        ({"remedies": [From([2], SLOW)]}, {"on_diverging": "reduce_lr"}, "learning rate"),
        (
            {"clip": OnceSlowed(Only("network.0", AGC()))},
            {"clip": {"network.0.weight": 1.0}},
            "clip",
        ),
    ],
)
def test_two_guards_that_act_on_the_same_thing_are_refused(first, second, what):
    two = [guard(**first), guard(**second, name="second")]
    with pytest.raises(ValueError, match=f"act on the same thing, got two that do: {what}"):
        train(classifier(), *two)


def test_two_guards_that_clip_different_layers_in_wrappers_are_not_refused():
    first = guard(clip=OnceSlowed(Only("network.0", AGC())))
    train(classifier(), first, guard(clip={"network.3": 0.01}, name="second"))


def test_a_guard_may_be_watched_beside_one_that_acts():
    make = with_factor(classifier(normed, torch.optim.AdamW), {5})
    acting, shadow = (guard(clip=0.02, on_nonfinite="skip", name=name) for name in "as")
    watching = guard(clip=0.01, on_nonfinite="skip", name="shadow", dry_run=True)
    assert_same(train(make, watching, acting), train(make, shadow))
    assert done(watching, "skip") == done(acting, "skip") == [5]
    assert done(watching, "clip") == done(acting, "clip") != []
    assert all(action.dry_run for action in watching.actions)


def test_two_guards_that_act_on_different_things_act_as_one():
    make = with_factor(classifier(normed, torch.optim.AdamW), {5})
    clips = {"network.0": 0.02, "network.1": "value", "*": 0.05}
    slows = From([2], SLOW)
    slows.acts = frozenset({"learning rate"})
    one = guard(clip=clips, on_nonfinite="skip", remedies=[From([2], SLOW)])
    two = [
        guard(clip={"network.0": 0.02}, on_nonfinite="skip"),
        guard(
            clip={"network.1": "value", "network.3": 0.05},
            remedies=[slows],
            name="second",
        ),
    ]
    assert_same(train(make, *two), train(make, one))
    assert done(two[0], "skip") == [5]
    assert done(two[1], "reduce_lr") == [2]


# What it costs.


@pytest.mark.parametrize("clip", ["norm", 0.01, "value", "autoclip", "zclip", "agc", "robust"])
@pytest.mark.parametrize("name", [n for n in SYNC_MODES if n != "lstm with a profile over time"])
def test_clipping_waits_for_nothing_that_watching_does_not_wait_for(clip, name, monkeypatch):
    monkeypatch.setattr(devices, "is_host", lambda _device: False)
    make, shape, options = SYNC_MODES[name]
    data = random_data(*shape)
    guarded = guard(clip=clip)
    added = waits(make, data, [guarded], **options)
    added -= waits(make, data, [GradientMonitor(sinks=[], on_error="raise")], **options)
    steps = guarded.summary().steps
    # Its numbers travel in a copy of their own, which nobody waits for until the next step.
    assert set(added) <= {"cpu", "numpy", "tolist"}
    assert added["cpu"] == added["numpy"] <= steps
    # What was learned is read once, for the checkpoint at the end.
    assert added["tolist"] <= (6 if name == "two optimizers" else 3)
