"""Weights that should learn and never get a gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradguard.detectors import CutOff, NotLearning
from tests.strategies import make_frame, said_by, stream, through_json


def reached(which: str) -> np.ndarray:
    """Return gradients of layers that get one, ``x``, or do not, ``-``."""
    return np.array([1.0 if mark == "x" else math.nan for mark in which])


def cut(step, gradients, *, loss=2.0, **changes):
    return make_frame(step, **{"gradients": gradients, "loss": loss, **changes})


def rules(frames, **options) -> set[str]:
    return {f.rule for f in said_by(NotLearning(cut_off=CutOff(**options)), frames)}


def learns_a_little(step):
    """As a decoder does behind an encoder that is cut off: then it stalls."""
    return 1.0 + math.exp(-step / 10)


FIRST_THIRD = reached("--xxxx")


def test_first_layers_that_are_cut_off_are_named_though_the_rest_learned() -> None:
    frames = stream(120, lambda s: cut(s, FIRST_THIRD, loss=learns_a_little(s)))
    found = said_by(NotLearning(), frames)
    assert {(f.rule, f.layers) for f in found} == {("cut off", ("l0", "l1"))}
    assert found[0].value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("gradients", "changes"),
    [
        (FIRST_THIRD, {"loss": None}),
        (reached("x--xxx"), {}),
        (reached("-xxxxx"), {}),
        (FIRST_THIRD, {"roles": ("norm", "embedding", *["weights"] * 4)}),
        (FIRST_THIRD, {"layers": ("aim.0", "aim.2", "net.0", "net.2", "net.4", "out")}),
        (FIRST_THIRD, {"layers": ("m.aim.0", "m.aim.2", "m.net.0", "m.net.2", "m.net.4", "m.o")}),
    ],
    ids=["no loss", "in the middle", "one layer", "no weight layers", "a twin", "a twin within"],
)
def test_what_is_no_matter_is_left_alone(gradients, changes) -> None:
    frames = stream(120, lambda s: cut(s, gradients, **{"loss": learns_a_little(s), **changes}))
    assert rules(frames) == set()


def test_a_twin_that_does_not_learn_either_is_no_excuse() -> None:
    layers = ("aim.0", "aim.2", "net.0", "net.2", "out", "head")
    gradients = reached("----xx")
    frames = stream(120, lambda s: cut(s, gradients, layers=layers, loss=learns_a_little(s)))
    assert rules(frames, limit_share=0.9) == {"cut off"}


def test_while_the_loss_falls_first_layers_may_be_what_others_have_trained() -> None:
    assert rules(stream(120, lambda s: cut(s, FIRST_THIRD, loss=0.98**s))) == set()


def test_experts_that_come_after_one_that_works_are_only_idle() -> None:
    layers = ("gate", *(f"experts.{i}.{part}" for i in range(6) for part in ("up", "down")), "out")
    gradients = reached("xxx" + "-" * 10 + "x")
    assert rules(stream(100, lambda s: cut(s, gradients, layers=layers))) == set()
    stack = tuple(name.replace("gate", "stem").replace("experts", "blocks") for name in layers)
    late = gradients[::-1]  # a stack is cut off from its first layer on
    assert rules(stream(100, lambda s: cut(s, late, layers=stack))) == {"cut off"}


def test_layers_that_thaw_have_not_been_reached_before_and_keep_what_others_had() -> None:
    """Gradual unfreezing adds rows in front."""

    def frame_at(step):
        names = ("l2", "l3", "l4") if step < 60 else ("l0", "l1", "l2", "l3", "l4")
        got = [1.0 if step < 60 or step % 7 == 0 else math.nan for _ in names]
        return cut(step, got, layers=names, loss=learns_a_little(step))

    assert rules(stream(200, frame_at)) == set()


def test_a_model_whose_matrices_rest_on_purpose_is_left_alone_once_it_gained() -> None:
    """Only its norm layers are tuned, the loss falls, and then there is nothing left to gain."""
    roles = ("weights",) * 4 + ("norm",) * 2
    frames = stream(
        150,
        lambda s: cut(s, reached("----xx"), roles=roles, bias_only=[4, 5], loss=learns_a_little(s)),
    )
    assert "cut off" not in rules(frames)


VECTORS = {"bias_only": range(4), "gradients": np.ones(4), "roles": ("norm",) * 4}


def test_biases_alone_that_get_nowhere_are_a_warning() -> None:
    rng = np.random.default_rng(0)
    noisy = stream(150, lambda s: make_frame(s, loss=2.0 + 0.3 * rng.normal(), **VECTORS))
    assert rules(noisy) == {"only vectors"}
    assert rules(stream(150, lambda s: make_frame(s, loss=2.0 * 0.99**s, **VECTORS))) == set()


@pytest.mark.parametrize("stop", [0, 1, 30, 100])
def test_stopping_in_between_changes_nothing(stop) -> None:
    frames = stream(120, lambda s: cut(s, FIRST_THIRD, loss=learns_a_little(s)))
    first = NotLearning()
    before = said_by(first, frames[:stop])
    after = said_by(through_json(first, NotLearning()), frames[stop:])
    assert [*before, *after] == said_by(NotLearning(), frames)
