"""Idle experts and dead layers, told apart."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from lightning_gradguard.detectors import Dead
from lightning_gradguard.detectors.idle import Idle, kind_of
from tests.strategies import make_frame, said_by, stream, through_json

EXPERTS = 40
LAYERS = ("gate", *(f"experts.{i}.{p}" for i in range(EXPERTS) for p in ("up", "down")), "out")


def routed(step, *, chosen):
    """One frame of a mixture in which only some experts were used; the rest has zeros."""
    is_used = {"gate": True, "out": True}
    is_used |= {name: int(name.split(".")[1]) in chosen for name in LAYERS[1:-1]}
    silent = {name: np.full(8, not is_used[name]) for name in LAYERS}
    gradients = [1.0 if is_used[name] else 0.0 for name in LAYERS]
    return make_frame(step, gradients, layers=LAYERS, silent_units=silent, loss=2.0)


def changing(step):
    rng = np.random.default_rng(step)
    return routed(step, chosen=set(rng.choice(EXPERTS, 4, replace=False).tolist()))


def test_experts_that_come_and_go_are_not_dead_however_long_they_wait() -> None:
    """Of four experts at a time, most of the forty wait for more than four samples."""
    assert said_by(Dead(patience_samples=2), stream(60, changing)) == []


def test_an_expert_whose_units_rest_beside_its_bias_makes_no_other_one_dead() -> None:
    """What comes next in order is then silent in its weights alone, as behind dead units."""

    def frame_at(step):
        frame = changing(step)
        resting = {
            name: np.ones(8, dtype=bool)
            for name, gradient in zip(LAYERS, frame.grad_norm, strict=True)
            if gradient > 0.0 and name.endswith("up") and step % 2
        }
        return dataclasses.replace(frame, silent_units={**frame.silent_units, **resting})

    assert said_by(Dead(patience_samples=4), stream(80, frame_at)) == []


def test_a_layer_that_never_wakes_up_is_dead_though_others_are_alike() -> None:
    names = tuple(f"net.{i}" for i in range(6))
    silent = {name: np.full(8, i == 3) for i, name in enumerate(names)}
    silent["net.4"] = np.ones(8, dtype=bool)  # fed by nothing but its own bias
    gradients = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    frames = stream(
        40, lambda s: make_frame(s, gradients, layers=names, silent_units=silent, loss=2.0)
    )
    assert said_by(Dead(), frames)[0].layers[0] == "net.3"


def test_what_is_remembered_survives_a_stop() -> None:
    idle = Idle()
    for silent in ({"e.0", "e.1"}, {"e.2"}):
        idle.update({"e.0", "e.1", "e.2"}, silent)
    restored = through_json(idle, Idle())
    assert restored.comes_and_goes("e.2")
    assert restored.state_dict() == idle.state_dict()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("net.0", "net.#"), ("3.weight", "#.weight"), ("conv1.b2", "conv1.b2"), ("0.1.2", "#.#.#")],
)
def test_a_kind_is_a_name_without_its_numbers(name, kind) -> None:
    assert kind_of(name) == kind


def test_hundreds_of_idle_experts_are_judged_in_little_time() -> None:
    """The limit leaves room for a busy machine: it takes some two milliseconds."""
    names = tuple(f"b.{i}.experts.{j}.{p}" for i in range(4) for j in range(64) for p in "ud")
    rng = np.random.default_rng(0)
    dead = Dead(patience_samples=2)
    began = time.thread_time()
    for step in range(20):
        is_used = dict.fromkeys(names, False)
        is_used |= {str(n): True for n in rng.choice(names, 40)}
        silent = {name: np.full(8, not is_used[name]) for name in names}
        gradients = [1.0 if is_used[name] else 0.0 for name in names]
        dead.update(make_frame(step, gradients, layers=names, silent_units=silent, loss=2.0))
    assert (time.thread_time() - began) / 20 < 0.1
