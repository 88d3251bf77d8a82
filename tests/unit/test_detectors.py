"""What each detector says of streams that a person made up."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lightning_gradguard.detectors import (
    Detector,
    Diverging,
    Exploding,
    NonFinite,
    NotLearning,
    Vanishing,
    default_detectors,
)
from lightning_gradguard.detectors.depth import depth_profile
from lightning_gradguard.detectors.over_time import decades_over_time
from lightning_gradguard.findings import Severity
from lightning_gradguard.inspector import Inspector
from tests.strategies import make_frame, said_by, stream, through_json

LAYERS = 8
EVEN = np.ones(LAYERS)
FADING = np.array([1e-6, 1e-5, 1e-4, 1.0, 1.0, 1.0, 1.0, 1.0])
GROWING = 1.0 / FADING
MILD = np.array([1e-2, 1e-1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
ONLY_THE_LAST_MOVES = np.append(np.full(LAYERS - 1, 1e-9), 1e-2)


def alarms(frames):
    inspector = Inspector()
    for frame in frames:
        inspector.update(frame)
    return [(f.kind, f.step, f.message) for f in inspector.findings if f.is_alarm]


def noise():
    return np.random.default_rng(0)


def falling(step):
    return 2.0 * 0.995**step


# Healthy runs.


def healthy_noise():
    rng = noise()
    return stream(
        600,
        lambda step: make_frame(
            step,
            10.0 ** rng.uniform(-0.5, 0.5, LAYERS),
            update_ratio=10.0 ** rng.uniform(-3.5, -2.5, LAYERS),
            loss=falling(step) * rng.uniform(0.8, 1.2),
        ),
    )


def shrinking_together():
    """Gradients, updates and the loss go to zero together, by twelve decades."""
    scales = np.logspace(0, -12, 600)
    return stream(
        600,
        lambda step: make_frame(
            step, scales[step] * EVEN, update_ratio=1e-3 * scales[step], loss=scales[step]
        ),
    )


def cosine_to_zero():
    def rate(step):
        return 0.05 * (1.0 + math.cos(math.pi * step / 599))

    return stream(
        600,
        lambda step: make_frame(
            step,
            EVEN,
            update_ratio=0.01 * rate(step),
            loss=falling(step),
            learning_rates=(rate(step),),
        ),
    )


def warm_up_from_zero():
    return stream(
        600,
        lambda step: make_frame(
            step, EVEN, update_ratio=1e-5 * step, loss=falling(step), learning_rates=(1e-4 * step,)
        ),
    )


def spikes_of_one_step():
    """Every hundredth step has a ten thousand times larger gradient and update."""

    def frame_at(step):
        scale = 1e4 if step % 100 == 99 else 1.0
        return make_frame(step, scale * EVEN, update_ratio=5e-5 * scale, loss=falling(step) * scale)

    return stream(600, frame_at)


def zero_weights_under_adam():
    """One matrix starts at zero; Adam moves it by its rate each step, so it is ``step`` rates."""

    def frame_at(step):
        weights, ratio = EVEN.copy(), 1e-3 * EVEN
        weights[3] = 1e-3 * step
        ratio[3] = 1.0 / max(step, 1)
        return make_frame(step, EVEN, weights=weights, update_ratio=ratio, loss=falling(step))

    return stream(600, frame_at)


def zero_gradient(layer, **fields):
    gradients = EVEN.copy()
    gradients[layer] = 0.0
    ratio = 1e-3 * gradients
    return stream(
        600,
        lambda step: make_frame(step, gradients, update_ratio=ratio, loss=falling(step), **fields),
    )


def clipped_giants():
    """Gradients of a million everywhere, clipped to one."""
    return stream(
        600,
        lambda step: make_frame(
            step, 1e6 * EVEN, loss=falling(step), global_grad_norm_at_update=1.0
        ),
    )


def scaler_overflows():
    def frame_at(step):
        if step % 50 == 0:
            return make_frame(step, EVEN, update_ratio=0.0, bad=range(LAYERS), stepped=False)
        return make_frame(step, EVEN, loss=falling(step))

    return stream(600, frame_at)


def plateau_then_learning():
    return stream(
        1000, lambda step: make_frame(step, EVEN, loss=2.3 if step < 600 else 2.3 * falling(step))
    )


def another_task():
    """The loss triples when the task changes; updates stay ordinary."""
    return stream(
        600, lambda step: make_frame(step, EVEN, loss=1.0 if step < 300 else 3.0 * falling(step))
    )


HEALTHY = {
    "noise within a decade": healthy_noise,
    "all shrink together": shrinking_together,
    "cosine to zero while the loss falls": cosine_to_zero,
    "warm-up from zero": warm_up_from_zero,
    "spikes of one step": spikes_of_one_step,
    "zero weights under Adam": zero_weights_under_adam,
    "first layer has only a bias, without gradient": lambda: zero_gradient(0, bias_only=[0]),
    "unused layer in the middle": lambda: zero_gradient(4),
    "giants that are clipped": clipped_giants,
    "a scaler overflows now and then": scaler_overflows,
    "plateau, then learning": plateau_then_learning,
    "another task": another_task,
    "no loss known": lambda: stream(600, lambda step: make_frame(step, EVEN, loss=None)),
    "update never seen": lambda: stream(
        600, lambda step: make_frame(step, EVEN, update_ratio=math.nan, loss=falling(step))
    ),
    "two layers": lambda: stream(
        600, lambda step: make_frame(step, (1e-9, 1.0), loss=falling(step))
    ),
}


@pytest.mark.parametrize("run", HEALTHY.values(), ids=HEALTHY.keys())
def test_healthy_run_raises_no_alarm(run) -> None:
    assert alarms(run()) == []


# Vanishing.


def vanishing(**changes):
    quick = {
        "limit_decades": 3.5,
        "mild_decades": 3.5,
        "max_update_ratio": 1e-5,
        "warmup_steps": 5,
        "time_limit_decades": 4.0,
        "time_warmup_steps": 30,
        "stall_blocks": 2,
    }
    return Vanishing(**{**quick, **changes})


def fading(step, **changes):
    fields = {"gradients": FADING, "update_ratio": 1e-9, "loss": None}
    return make_frame(step, **{**fields, **changes})


def test_vanishing_over_depth_names_the_first_layers_only() -> None:
    found = said_by(vanishing(), stream(6, fading))
    assert [f.step for f in found] == [5]
    assert found[0].kind == "vanishing"
    assert found[0].severity is Severity.ERROR
    assert found[0].layers == ("l0", "l1", "l2")
    assert [found[0].value, found[0].limit] == pytest.approx([6.0, 3.5])


def test_vanishing_is_relative_to_the_weights() -> None:
    frames = stream(20, lambda step: fading(step, weights=FADING))
    assert said_by(vanishing(), frames) == []


def test_layers_that_move_all_the_same_do_not_vanish() -> None:
    assert said_by(vanishing(), stream(20, lambda s: fading(s, update_ratio=1e-3))) == []


def test_vanishing_ends_at_the_first_layer_that_moves() -> None:
    ratio = np.full(LAYERS, 1e-9)
    ratio[1] = 1e-3
    found = said_by(vanishing(), stream(7, lambda s: fading(s, update_ratio=ratio)))
    assert [f.layers for f in found] == [("l0",), ("l0",)]


def test_no_gradient_at_all_at_the_first_layer_is_an_infinite_drop() -> None:
    gradients = EVEN.copy()
    gradients[0] = 0.0
    found = said_by(vanishing(), stream(6, lambda s: fading(s, gradients=gradients)))
    assert found[0].value == math.inf
    assert "is zero" in found[0].message


@pytest.mark.parametrize(
    "changes",
    [
        {"bad": [4]},
        {"stepped": False},
        {"gradients": np.zeros(LAYERS)},
        {"gradients": np.full(LAYERS, np.nan)},
        {"bias_only": range(6)},
    ],
    ids=["not finite", "no step", "all zero", "unknown", "two weight layers"],
)
def test_depth_that_cannot_be_judged_is_not(changes) -> None:
    assert said_by(vanishing(), stream(20, lambda s: fading(s, **changes))) == []


def test_a_milder_drop_counts_while_the_loss_has_never_moved() -> None:
    detector = vanishing(mild_decades=1.5)
    still = said_by(
        detector,
        stream(60, lambda s: fading(s, gradients=MILD, update_ratio=ONLY_THE_LAST_MOVES, loss=2.0)),
    )
    assert still
    assert (still[0].limit, still[0].layers) == (1.5, ("l0",))
    detector = vanishing(mild_decades=1.5)
    resting = stream(60, lambda s: fading(s, gradients=MILD, update_ratio=1e-9, loss=2.0))
    assert said_by(detector, resting) == []  # a rate that is still warming up
    detector = vanishing(mild_decades=1.5)
    moving = stream(
        60, lambda s: fading(s, gradients=MILD, update_ratio=ONLY_THE_LAST_MOVES, loss=falling(s))
    )
    assert said_by(detector, moving) == []


FORGETFUL = np.logspace(-15.0, 0.0, 16)  # medians of the quarters: 5.5e-14 and 5.5e-2


def forgetting(step, *, loss=1.0, profile=FORGETFUL):
    return make_frame(step, EVEN, loss=loss, time_profiles={"rnn": profile, "short": np.ones(3)})


def test_vanishing_over_time_names_the_recurrent_layer_and_its_drop() -> None:
    found = said_by(vanishing(), stream(120, forgetting))
    assert found
    assert {f.layers for f in found} == {("rnn",)}
    assert found[0].value == pytest.approx(12.0)
    assert found[0].limit == 4.0
    assert found[0].step >= 30


def test_vanishing_over_time_needs_a_loss_that_stalls() -> None:
    assert said_by(vanishing(), stream(300, lambda s: forgetting(s, loss=falling(s)))) == []


def test_vanishing_over_time_is_silent_during_warm_up() -> None:
    assert said_by(vanishing(time_warmup_steps=300), stream(300, forgetting)) == []


def test_vanishing_over_time_needs_several_samples_that_agree() -> None:
    def once(step):
        return forgetting(step) if step == 100 else make_frame(step, EVEN)

    assert said_by(vanishing(), stream(300, once)) == []

    def now_and_then(step):
        return forgetting(step, profile=FORGETFUL if step % 3 == 0 else np.ones(16))

    assert said_by(vanishing(), stream(300, now_and_then)) == []


def test_layer_that_remembers_is_silent_over_time() -> None:
    assert said_by(vanishing(), stream(300, lambda s: forgetting(s, profile=np.ones(16)))) == []


def test_profile_with_nan_is_not_learned() -> None:
    detector = vanishing()
    broken = np.append(FORGETFUL[:-1], math.nan)
    assert said_by(detector, stream(300, lambda s: forgetting(s, profile=broken))) == []
    assert "NaN" not in json.dumps(detector.state_dict())


@pytest.mark.parametrize(
    ("profile", "decades"),
    [
        (FORGETFUL, 12.0),
        (FORGETFUL[::-1], -12.0),
        (np.ones(8), 0.0),
        (np.array([1e-3] * 2 + [7.0] * 4 + [1e2] * 2), 5.0),
    ],
)
def test_decades_over_time_compare_the_quarters_medians(profile, decades) -> None:
    assert decades_over_time(profile) == pytest.approx(decades)


@pytest.mark.parametrize(
    "profile",
    [np.ones(7), np.zeros(8), np.append(np.ones(8), np.inf)],
    ids=["too short", "nothing at the end", "not finite"],
)
def test_decades_over_time_are_nan_where_they_mean_nothing(profile) -> None:
    assert math.isnan(decades_over_time(profile))


def test_steps_that_get_nothing_at_all_are_hundreds_of_decades_down() -> None:
    assert decades_over_time(np.repeat([0.0, 1.0], 8)) > 100.0


# Exploding.


def exploding(**changes):
    fields = {
        "max_update_ratio": 1.0,
        "limit_decades": 2.5,
        "growth_decades": 2.0,
        "warmup_steps": 20,
        "decay": 0.98,
    }
    return Exploding(**{**fields, **changes})


def test_update_larger_than_the_weights_twice_in_a_row_is_an_explosion() -> None:
    ratio = np.full(LAYERS, 1e-3)
    ratio[2], ratio[5] = 4.0, 2.0
    found = said_by(exploding(), stream(2, lambda s: make_frame(s, EVEN, update_ratio=ratio)))
    assert [f.step for f in found] == [1]
    assert found[0].severity is Severity.CRITICAL
    assert found[0].layers == ("l2", "l5")
    assert (found[0].value, found[0].limit) == (4.0, 1.0)
    assert "changes l2 by 4.0 times" in found[0].message


def test_large_updates_with_a_pause_between_are_no_explosion() -> None:
    frames = stream(40, lambda s: make_frame(s, EVEN, update_ratio=5.0 if s % 2 else 1e-3))
    assert said_by(exploding(), frames) == []


def test_large_updates_of_changing_layers_are_no_explosion() -> None:
    def frame_at(step):
        ratio = np.full(LAYERS, 1e-3)
        ratio[step % LAYERS] = 5.0
        return make_frame(step, EVEN, update_ratio=ratio)

    assert said_by(exploding(), stream(40, frame_at)) == []


def test_update_a_thousand_times_the_weights_is_an_explosion_at_once() -> None:
    found = said_by(exploding(), [make_frame(0, EVEN, update_ratio=2000.0)])
    assert [f.step for f in found] == [0]
    assert "2.0e+03 times" in found[0].message


def test_explosion_over_depth_names_the_layers_whose_gradient_is_too_large() -> None:
    frames = stream(5, lambda s: make_frame(s, GROWING, update_ratio=0.5))
    found = said_by(exploding(), frames)[-1]
    assert found.layers == ("l0", "l1", "l2")
    # A quarter of eight layers is two, with 6 and 5 decades.
    assert [found.value, found.limit] == pytest.approx([5.5, 2.5])
    assert found.severity is Severity.ERROR


def test_gradient_that_grows_toward_the_input_harms_nobody_while_updates_are_small() -> None:
    frames = stream(40, lambda s: make_frame(s, GROWING, update_ratio=1e-6))
    assert said_by(exploding(), frames) == []


@pytest.mark.parametrize(
    "gradients",
    [np.append(np.ones(7), 0.0), np.full(LAYERS, np.nan)],
    ids=["nothing near the loss", "unknown"],
)
def test_explosion_over_depth_needs_something_to_compare_with(gradients) -> None:
    frames = stream(40, lambda s: make_frame(s, gradients, update_ratio=0.5))
    assert said_by(exploding(), frames) == []


def rising(step, *, until=60, norm=1e6, **fields):
    fields = {"update_ratio": 0.5, **fields}
    return make_frame(step, EVEN, global_grad_norm=1.0 if step < until else norm, **fields)


def test_growth_that_moves_nothing_is_no_explosion() -> None:
    assert said_by(exploding(), stream(100, lambda s: rising(s, update_ratio=0.01))) == []


def test_global_norm_that_stays_decades_above_its_past_is_an_explosion() -> None:
    found = said_by(exploding(), stream(63, rising))
    assert [f.step for f in found] == [62]
    assert found[0].layers == ()
    assert found[0].value == 1e6
    assert 1e2 <= found[0].limit < 1e6
    assert "1e+06" in found[0].message


def test_what_is_high_teaches_the_past_a_limited_value_only() -> None:
    """Learned in full, two steps of 1e5 would widen the limit so that the third looks usual."""
    found = said_by(exploding(), stream(63, lambda s: rising(s, norm=1e5)))
    assert [f.step for f in found] == [62]


def test_one_step_or_two_above_the_past_are_no_explosion() -> None:
    def frame_at(step):
        return rising(step, until=0 if step % 100 in {60, 61} else 10**9)

    assert said_by(exploding(), stream(400, frame_at)) == []


def test_growth_is_not_judged_during_warm_up() -> None:
    assert said_by(exploding(), stream(60, lambda s: rising(s, until=15))) == []


def test_slow_growth_is_learned_and_no_explosion() -> None:
    frames = stream(2000, lambda s: rising(s, until=0, norm=1.005**s))
    assert said_by(exploding(), frames) == []


def test_growth_is_judged_after_clipping() -> None:
    frames = stream(200, lambda s: rising(s, global_grad_norm_at_update=1.0))
    assert said_by(exploding(), frames) == []
    frames = stream(
        200,
        lambda s: make_frame(
            s, EVEN, update_ratio=0.5, global_grad_norm_at_update=rising(s).global_grad_norm
        ),
    )
    assert said_by(exploding(), frames)


def test_norm_of_zero_says_nothing_and_is_not_learned() -> None:
    detector = exploding()
    assert said_by(detector, stream(60, lambda s: rising(s, until=0, norm=0.0))) == []
    assert detector.state_dict()["log_norm"][0] == 0


def test_exploding_leaves_broken_frames_to_nonfinite() -> None:
    frames = stream(5, lambda s: make_frame(s, EVEN, update_ratio=500.0, bad=[0]))
    assert said_by(exploding(), frames) == []


# Non-finite.


def test_nonfinite_gradient_is_critical_at_once_and_named_where_it_began() -> None:
    found = said_by(NonFinite(), [make_frame(0, EVEN), make_frame(1, EVEN, bad=[1, 4])])
    assert [(f.kind, f.step, f.severity) for f in found] == [("nonfinite", 1, Severity.CRITICAL)]
    assert found[0].layers == ("l1", "l4")
    assert (found[0].value, found[0].limit) == (6.0, 0.0)
    assert "breaks first in l4" in found[0].message
    assert "last finite at step 0" in found[0].message
    assert "l4" in found[0].advice


def test_nonfinite_loss_is_blamed_on_the_loss() -> None:
    found = said_by(NonFinite(), [make_frame(0, EVEN, bad=[0, 1], loss=math.nan)])
    assert "the loss is nan" in found[0].message
    assert "no earlier step was finite" in found[0].message
    assert "forward pass" in found[0].advice


def test_nonfinite_loss_alone_is_enough() -> None:
    assert [f.kind for f in said_by(NonFinite(), [make_frame(0, loss=math.inf)])] == ["nonfinite"]


def test_nonfinite_after_an_explosion_is_blamed_on_it() -> None:
    frames = [
        make_frame(0, EVEN),
        make_frame(1, 1e4 * EVEN),
        make_frame(2, EVEN, bad=[0]),
    ]
    assert "exploded" in said_by(NonFinite(), frames)[0].advice


def test_step_that_the_scaler_refused_is_a_notice() -> None:
    found = said_by(NonFinite(), [make_frame(0, EVEN, bad=[0], stepped=False)])
    assert [(f.kind, f.severity, f.layers) for f in found] == [
        ("amp_overflow", Severity.INFO, ("l0",))
    ]


def test_finite_numbers_of_any_size_are_fine() -> None:
    assert said_by(NonFinite(), [make_frame(0, 1e100 * EVEN, loss=-1e100)]) == []


# Not learning.


def not_learning(**changes):
    fields = {"min_update_ratio": 2e-7, "stall_steps": 300, "tolerance": 0.01}
    return NotLearning(**{**fields, **changes})


def stuck(step, **changes):
    return make_frame(step, **{"gradients": EVEN, "update_ratio": 1e-8, "loss": 2.0, **changes})


def test_weights_and_loss_that_stand_still_do_not_learn() -> None:
    found = said_by(not_learning(), stream(100, stuck))
    assert found
    assert {(f.kind, f.severity) for f in found} == {("not_learning", Severity.ERROR)}
    assert [found[0].value, found[0].limit] == pytest.approx([1e-8, 2e-7])


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rates": (0.0, 0.0)},
        {"stepped": False},
        {"bad": [0]},
        {"loss": None},
        {"update_ratio": math.nan},
        {"update_ratio": [1e-8] * 7 + [1e-3]},
    ],
    ids=[
        "rests on purpose",
        "no step",
        "not finite",
        "no loss",
        "update unseen",
        "one layer moves",
    ],
)
def test_standing_still_with_a_reason_is_no_fault(changes) -> None:
    assert said_by(not_learning(), stream(100, lambda s: stuck(s, **changes))) == []


def test_loss_that_falls_slowly_is_learning_whatever_the_update() -> None:
    assert said_by(not_learning(), stream(1000, lambda s: stuck(s, loss=2.0 * 0.999**s))) == []


def test_loss_that_never_moved_is_too_long_a_plateau_in_the_end() -> None:
    frames = stream(400, lambda s: stuck(s, update_ratio=1e-3))
    found = said_by(not_learning(), frames)
    assert found[0].step == 299
    assert found[0].severity is Severity.INFO  # alone it proves nothing
    assert found[0].value == 0.0


def test_loss_below_its_start_is_no_plateau() -> None:
    frames = stream(400, lambda s: stuck(s, update_ratio=1e-3, loss=2.0 if s < 30 else 1.5))
    assert said_by(not_learning(), frames) == []


def test_without_a_learning_rate_standing_still_is_judged_too() -> None:
    assert said_by(not_learning(), stream(100, lambda s: stuck(s, learning_rates=())))


# Diverging.


def diverging(**changes):
    return Diverging(**{"excess": 0.5, "min_update_ratio": 0.02, **changes})


def climbing(step, **changes):
    fields = {"gradients": EVEN, "update_ratio": 0.1, "loss": 1.0 if step < 20 else 4.0}
    return make_frame(step, **{**fields, **changes})


def test_loss_that_climbs_under_large_updates_diverges() -> None:
    found = said_by(diverging(), stream(41, climbing))
    assert [f.step for f in found] == [39, 40]
    assert (found[0].kind, found[0].severity) == ("diverging", Severity.ERROR)
    assert (found[0].value, found[0].limit) == (4.0, 1.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"update_ratio": 1e-3},
        {"update_ratio": math.nan},
        {"bad": [0]},
        {"loss": 1.0},
        {"loss": None},
    ],
    ids=["small updates", "update unseen", "not finite", "flat", "no loss"],
)
def test_loss_that_climbs_for_another_reason_does_not_diverge(changes) -> None:
    assert said_by(diverging(), stream(100, lambda s: climbing(s, **changes))) == []


def test_noise_of_the_loss_is_no_divergence() -> None:
    rng = noise()
    frames = stream(400, lambda s: climbing(s, loss=0.1 + abs(rng.normal())))
    assert said_by(diverging(), frames) == []


# All of them.


def test_depth_profile_keeps_layers_with_weights_and_a_gradient() -> None:
    gradients = np.array([math.nan, 1e-3, 1.0, 0.0, 1.0])
    frame = make_frame(0, gradients, weights=(1.0, 1.0, 10.0, 1.0, 0.0), update_ratio=0.5)
    profile = depth_profile(frame)
    assert profile is not None
    assert profile.layers == ("l1", "l2", "l3")
    np.testing.assert_allclose(profile.decades, [-3.0, -1.0, -math.inf])
    np.testing.assert_allclose(profile.update_ratio, [0.5] * 3)


def test_near_the_loss_is_the_last_quarter() -> None:
    profile = depth_profile(make_frame(0, 10.0 ** np.arange(12.0)))
    assert profile is not None
    assert profile.near_loss == pytest.approx(10.0)  # the median of 9, 10, 11


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Vanishing, "limit_decades"),
        (Vanishing, "max_update_ratio"),
        (Vanishing, "time_limit_decades"),
        (Exploding, "max_update_ratio"),
        (NotLearning, "min_update_ratio"),
        (Diverging, "excess"),
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_limit_that_is_not_positive_is_refused_by_name(make, name, value) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be positive, got"):
        make(**{name: value})


def test_patience_is_what_was_asked_for() -> None:
    assert Vanishing(patience_steps=3).patience_steps_by_kind == {"vanishing": 3}
    assert NotLearning(patience_steps=4).patience_steps_by_kind == {"not_learning": 4}
    assert Diverging(patience_steps=5).patience_steps_by_kind == {"diverging": 5}


def test_default_detectors_are_fresh_and_keep_the_protocol() -> None:
    first, second = default_detectors(), default_detectors()
    assert all(isinstance(detector, Detector) for detector in first)
    assert {type(d) for d in first} >= {NonFinite, Exploding, Vanishing, NotLearning, Diverging}
    assert not {id(d) for d in first} & {id(d) for d in second}


def swelling(step):
    return make_frame(step, EVEN, update_ratio=5.0 if step >= 10 else 1e-3)


INTERRUPTED = {
    "nonfinite": (NonFinite, lambda s: make_frame(s, 1e3**s * EVEN, bad=[0] if s == 3 else []), 5),
    "exploding by update": (exploding, swelling, 14),
    "exploding by growth": (exploding, lambda s: rising(s, until=30), 36),
    "vanishing over depth": (vanishing, fading, 8),
    "vanishing mildly": (
        lambda: vanishing(mild_decades=1.0),
        lambda s: make_frame(s, MILD, update_ratio=ONLY_THE_LAST_MOVES),
        60,
    ),
    "vanishing over time": (vanishing, forgetting, 90),
    "not learning": (not_learning, stuck, 90),
    "a plateau from the start": (
        lambda: not_learning(stall_steps=50),
        lambda s: stuck(s, update_ratio=1e-3),
        60,
    ),
    "diverging": (diverging, climbing, 50),
}


@pytest.mark.parametrize(("make", "frame_at", "steps"), INTERRUPTED.values(), ids=INTERRUPTED)
def test_stopping_at_any_step_changes_nothing(make, frame_at, steps) -> None:
    frames = stream(steps, frame_at)
    expected = [f.to_dict() for f in said_by(make(), frames)]
    for stop in range(steps + 1):
        first = make()
        said = said_by(first, frames[:stop])
        said += said_by(through_json(first, make()), frames[stop:])
        assert repr([f.to_dict() for f in said]) == repr(expected), f"stopped at {stop}"
    assert expected


def test_a_plateau_after_progress_is_no_fault() -> None:
    frames = stream(
        600,
        lambda s: make_frame(
            s,
            [10 ** (-s / 50)] * 4,
            update_ratio=1e-3 * 10 ** (-s / 50),
            loss=0.3 + 2 * math.exp(-s / 20),
        ),
    )
    assert said_by(NotLearning(), frames) == []


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
    assert said_by(Exploding(), frames) == []


def test_a_value_violates_its_limit_even_if_only_the_loss_is_broken() -> None:
    (finding,) = NonFinite().update(make_frame(loss=math.nan))
    assert finding.value > finding.limit


def test_one_huge_update_counts_if_the_loss_jumps_after_it() -> None:
    # Adam at a rate of 1: the first update is nine times the weights, the later ones are not.
    frames = [
        make_frame(0, update_ratio=(0.5, 9.0, 0.5, 0.5), loss=0.9),
        make_frame(1, update_ratio=0.7, loss=8.8e5),
    ]
    (finding,) = said_by(Exploding(), frames)
    assert (finding.step, finding.layers, finding.value) == (1, ("l1",), 9.0)
    frames[1] = make_frame(1, update_ratio=0.7, loss=1.4)
    assert said_by(Exploding(), frames) == []


def test_a_restart_may_raise_the_loss_to_where_it_began() -> None:
    falls_fast = [0.95 * 0.9**step for step in range(20)]
    restart = [0.3] * 200 + [0.9] * 60
    frames = [
        make_frame(step, update_ratio=0.1, loss=loss)
        for step, loss in enumerate(falls_fast + restart)
    ]
    assert said_by(Diverging(), frames) == []


def test_a_stall_of_no_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="`stall_blocks` must be at least 1, got 0"):
        vanishing(stall_blocks=0)


def test_a_scaler_that_refuses_for_ever_is_an_alarm() -> None:
    detector = NonFinite(max_refused_steps=3)
    frames = stream(5, lambda s: make_frame(s, bad=[1], stepped=False))
    kinds = [f.kind for f in said_by(detector, frames)]
    assert kinds == ["amp_overflow"] * 3 + ["nonfinite"] * 2
