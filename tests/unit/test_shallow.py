"""Vanishing over depth: only the layers near the loss learn."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_gradguard.detectors import Shallow
from lightning_gradguard.findings import Severity
from tests.strategies import held, make_frame, stream

LAYERS = 8
EVEN = np.ones(LAYERS)
FADING = np.array([1e-6, 1e-5, 1e-4, 1.0, 1.0, 1.0, 1.0, 1.0])
MILD = np.array([1e-3, 1e-2, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
ONLY_THE_LAST_MOVES = np.append(np.full(LAYERS - 1, 1e-9), 1e-2)


def shallow(**changes):
    quick = {"limit_decades": 3.5, "mild_decades": 3.5, "max_update_ratio": 1e-5}
    return Shallow(**{**quick, "warmup_steps": 5, **changes})


def fading(step, **changes):
    fields = {"gradients": FADING, "update_ratio": 1e-9, "loss": None}
    return make_frame(step, **{**fields, **changes})


def falling(step):
    return 2.0 * 0.99**step


def test_the_first_layers_are_named_with_their_drop() -> None:
    (finding,) = held(shallow(), stream(6, fading))
    assert (finding.kind, finding.rule, finding.step) == ("vanishing", "over depth", 5)
    assert finding.severity is Severity.ERROR
    assert finding.layers == ("l0", "l1", "l2")
    assert [finding.value, finding.limit] == pytest.approx([6.0, 3.5])
    assert "10^6.0 times smaller than near the loss" in finding.message
    assert "moves l0 by 1.0e-09 of its size" in finding.message


@pytest.mark.parametrize(
    ("signal", "lost", "advice"),
    [
        (FADING, "loses 5.5 decades over them", "batch or layer normalisation"),
        (EVEN, "loses 0.0 decades over them", "scaling the inputs to unit variance"),
    ],
    ids=["the signal is lost", "the inputs are small"],
)
def test_the_gradient_of_outputs_tells_the_signal_from_the_inputs(signal, lost, advice) -> None:
    norms = {f"l{k}": norm for k, norm in enumerate(signal.tolist())}
    frames = stream(6, lambda s: fading(s, output_grad_norms=norms if s == 2 else {}))
    (finding,) = held(shallow(), frames)
    assert lost in finding.message
    assert finding.advice.startswith(advice)


def test_gradients_are_taken_relative_to_the_weights() -> None:
    assert held(shallow(), stream(20, lambda s: fading(s, weights=FADING))) == []


def test_layers_that_adam_moves_all_the_same_do_not_vanish_while_the_loss_falls() -> None:
    """Adam divides the scale out: early gradients five decades smaller, ordinary updates."""
    gradients = np.array([1e-5, 1e-5, 1e-4, 1e-3, 1e-2, 1.0, 1.0, 1.0])
    frames = stream(
        400, lambda s: fading(s, gradients=gradients, update_ratio=1e-3, loss=falling(s))
    )
    assert held(shallow(), frames) == []


def test_layers_that_adam_moves_by_noise_vanish_once_the_loss_stalls() -> None:
    frames = stream(400, lambda s: fading(s, update_ratio=1e-3, loss=2.0))
    assert held(shallow(), frames)


def test_the_finding_ends_at_the_first_layer_that_moves() -> None:
    ratio = np.full(LAYERS, 1e-9)
    ratio[1] = 1e-3
    found = held(shallow(), stream(7, lambda s: fading(s, update_ratio=ratio)))
    assert [f.layers for f in found] == [("l0",), ("l0",)]


def test_no_gradient_at_all_at_the_first_layer_is_a_drop_of_any_size() -> None:
    gradients = EVEN.copy()
    gradients[0] = 0.0
    (finding,) = held(shallow(), stream(6, lambda s: fading(s, gradients=gradients)))
    assert finding.value == 300.0
    assert "is zero" in finding.message


@pytest.mark.parametrize(
    "changes",
    [
        {"bad": [4]},
        {"stepped": False},
        {"gradients": np.zeros(LAYERS)},
        {"gradients": np.full(LAYERS, np.nan)},
        {"gradients": EVEN},
        {"gradients": FADING[::-1]},
        {"bias_only": range(6)},
        {"bias_only": range(3)},
        {"roles": ("norm", "embedding", "vectors", *["weights"] * 5)},
        {"roles": ("container", "container", "container", *["weights"] * 5)},
    ],
    ids=[
        "not finite",
        "no step",
        "all zero",
        "unknown",
        "all shrink together",
        "exploding instead",
        "two weight layers",
        "biases only",
        "norm, embedding, vectors",
        "containers",
    ],
)
def test_what_only_looks_like_it_is_left_alone(changes) -> None:
    assert held(shallow(), stream(60, lambda s: fading(s, **changes))) == []


def test_a_milder_drop_counts_while_the_loss_has_never_moved() -> None:
    def run(**fields):
        rule = shallow(mild_decades=1.5)
        return held(rule, stream(60, lambda s: fading(s, gradients=MILD, **fields)))

    stuck = run(update_ratio=ONLY_THE_LAST_MOVES, loss=2.0)
    assert stuck
    assert (stuck[0].limit, stuck[0].layers) == (1.5, ("l0", "l1"))
    assert run(update_ratio=1e-9, loss=2.0) == []  # a rate that is still warming up
    moving = stream(
        60, lambda s: fading(s, gradients=MILD, update_ratio=ONLY_THE_LAST_MOVES, loss=falling(s))
    )
    assert held(shallow(mild_decades=1.5), moving) == []


def test_a_single_layer_with_a_mild_drop_has_a_reason_of_its_own() -> None:
    """As the first factor of a low-rank correction, whose gradient waits for the second one."""
    gradients = np.append([1e-2], np.ones(LAYERS - 1))
    frames = stream(
        60,
        lambda s: fading(s, gradients=gradients, update_ratio=ONLY_THE_LAST_MOVES, loss=2.0),
    )
    assert held(shallow(mild_decades=1.5), frames) == []


def test_weights_that_are_still_next_to_nothing_are_no_yardstick() -> None:
    """Gradient over weight is huge for them, and says nothing of depth."""
    weights = np.append(np.ones(4), np.full(4, 1e-4))
    frames = stream(60, lambda s: fading(s, gradients=EVEN, weights=weights, loss=2.0))
    assert held(shallow(), frames) == []


def decaying(step, *, share):
    """A first layer that nothing but weight decay moves, by a share of its size."""
    ratio = np.append([1e-3], np.full(LAYERS - 1, 1e-2))
    weights = EVEN.copy()
    weights[0] = (1.0 - share) ** step
    return fading(
        step, gradients=FADING * weights, weights=weights, update_ratio=ratio, loss=falling(step)
    )


def test_weights_that_only_decay_do_not_learn() -> None:
    (first, *_) = held(shallow(), stream(20, lambda s: decaying(s, share=1e-3)))
    assert first.layers == ("l0",)
    assert "does not move l0 at all" in first.message


def test_weights_that_move_and_keep_their_size_do_learn() -> None:
    assert held(shallow(), stream(20, lambda s: decaying(s, share=0.0))) == []


def test_a_branch_vanishes_beside_one_that_learns() -> None:
    layers = (*(f"left.{i}" for i in range(4)), *(f"right.{i}" for i in range(4)))
    gradients = np.array([1.0] * 4 + [1e-6, 1e-5, 1.0, 1.0])
    ratio = np.where(gradients < 1.0, 1e-9, 1e-3)
    (finding,) = held(
        shallow(),
        stream(6, lambda s: fading(s, gradients=gradients, layers=layers, update_ratio=ratio)),
    )
    assert finding.layers == ("right.0", "right.1")
    assert "near the end of right" in finding.message


def test_a_frozen_start_in_the_middle_is_no_vanishing_of_the_model() -> None:
    gradients = EVEN.copy()
    gradients[3] = 1e-9
    assert held(shallow(), stream(20, lambda s: fading(s, gradients=gradients))) == []
