"""Fixed limits, AutoClip, ZClip and AGC against what their papers say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_gradguard.actions.clipping import clip_
from lightning_gradguard.remedies import AGC, AutoClip, ClipNorm, ClipValue, Moment, Robust, ZClip
from lightning_gradguard.remedies.factors import clip_factors
from lightning_gradguard.remedies.gradients import Gradients
from lightning_gradguard.remedies.testing import moment_of
from lightning_gradguard.rosters import roster_of
from tests.clipping_oracles import (
    CALM,
    SPIKES,
    STREAMS,
    agc,
    autoclip_limits,
    factors_of,
    let_through,
    limited,
    moment_of_layers,
    poisoned,
    zclip_limits,
)

every_stream = pytest.mark.parametrize("norms", STREAMS.values(), ids=STREAMS)


def vector(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


@every_stream
def test_a_fixed_norm_lets_through_what_is_below_it(norms) -> None:
    assert let_through(ClipNorm(1.5), norms) == pytest.approx(limited(norms, [1.5] * len(norms)))


def test_what_is_not_finite_or_zero_is_not_scaled() -> None:
    norms = vector(math.nan, math.inf, 0.0, 1.0, 1.0 + 1e-12, 2.0)
    assert clip_factors(norms, torch.ones_like(norms)).tolist() == pytest.approx(
        [1, 1, 1, 1, 1, 0.5]
    )


@pytest.mark.parametrize("percentile", [10.0, 50.0, 100.0])
@every_stream
def test_autoclip_clips_to_the_percentile_of_all_norms_so_far(norms, percentile) -> None:
    expected = limited(norms, autoclip_limits(norms, percentile))
    assert let_through(AutoClip(percentile), norms) == pytest.approx(expected)


def test_autoclip_forgets_what_left_its_window() -> None:
    expected = limited(SPIKES, autoclip_limits(SPIKES, 10.0, window=16))
    assert let_through(AutoClip(10.0, window=16), SPIKES) == pytest.approx(expected)


@pytest.mark.parametrize("max_norm", [None, 2.0])
@every_stream
def test_zclip_is_the_published_formula(norms, max_norm) -> None:
    limits = zclip_limits(norms, max_norm=math.inf if max_norm is None else max_norm)
    found = let_through(ZClip(max_norm=max_norm), norms)
    assert found == pytest.approx(limited(norms, limits), rel=1e-4)


def test_zclip_judges_from_the_first_norm_after_its_warm_up_on() -> None:
    assert factors_of(ZClip(max_norm=None), [*CALM[:24], 1e3])[-1] == 1.0
    assert factors_of(ZClip(max_norm=None), [*CALM[:25], 1e3])[-1] < 0.1


def test_the_fixed_limit_of_zclip_teaches_it_nothing() -> None:
    """What it lets through of spikes is below the limit in both, and must be the same."""
    capped, free = ZClip(max_norm=0.5), ZClip(max_norm=None)
    let_through(capped, SPIKES)
    let_through(free, SPIKES)
    assert capped.state_dict() == free.state_dict()


def test_zclip_takes_its_options() -> None:
    options = {"z_threshold": 1.5, "decay": 0.8}
    limits = zclip_limits(SPIKES, warmup=7, **options)
    found = let_through(ZClip(warmup_steps=7, max_norm=None, **options), SPIKES)
    assert found == pytest.approx(limited(SPIKES, limits), rel=1e-4)


def test_after_equal_norms_a_ripple_is_no_outlier() -> None:
    norms = [2.0] * 40 + [2.0 * 1.02, 2.0 * 1.05]
    clipper = ZClip(max_norm=None)
    *_, ripple, more = factors_of(clipper, norms)
    assert ripple == 1.0  # two floors above the mean
    assert 0.9 < more < 1.0


CLIPPERS = {
    "autoclip": AutoClip,
    "zclip": lambda **options: ZClip(max_norm=None, **options),
    "robust": Robust,
}
every_clipper = pytest.mark.parametrize("make", CLIPPERS.values(), ids=CLIPPERS)


@every_clipper
@every_stream
def test_nan_infinity_and_zero_teach_nothing(make, norms) -> None:
    mixed, places = poisoned(norms)
    found = let_through(make(), mixed)
    assert [found[i] for i in places] == pytest.approx(let_through(make(), norms))


@every_clipper
def test_a_start_of_zeros_does_not_clip_to_nothing(make) -> None:
    factors = factors_of(make(), [0.0] * 40 + CALM)
    assert factors[40:] == pytest.approx(factors_of(make(), CALM))


@every_clipper
@pytest.mark.parametrize("size", [1e20, 1e-25])
def test_tiny_and_huge_norms_are_judged_as_any_others(make, size) -> None:
    sized = factors_of(make(), [size * norm for norm in SPIKES])
    assert sized == pytest.approx(factors_of(make(), SPIKES), rel=1e-6)


@every_clipper
def test_a_second_look_at_a_step_teaches_nothing(make) -> None:
    once, twice = make(), make()
    for norm in SPIKES:
        first = twice.decide(moment_of([norm]))[0].factors.item()
        assert once.decide(moment_of([norm]))[0].factors.item() == first
        twice.decide(moment_of([100.0 * norm], is_first_look=False))
    assert once.state_dict() == twice.state_dict()


@every_clipper
def test_layers_are_judged_apart_and_keep_their_past_while_they_have_no_gradient(make) -> None:
    clipper = make(per="layer")
    found = []
    for i, norm in enumerate(SPIKES):
        rare = vector(100.0 * norm) if i % 2 else None
        moment = moment_of_layers({"a.w": vector(norm), "b.w": rare})
        found.append(clipper.decide(moment)[0].factors.tolist())
    assert [a for a, _ in found] == pytest.approx(factors_of(make(), SPIKES))
    rare = [100.0 * norm for norm in SPIKES[1::2]]
    assert [b for _, b in found[1::2]] == pytest.approx(factors_of(make(), rare))
    assert {b for _, b in found[::2]} == {1.0}


@every_clipper
def test_a_layer_that_is_added_moves_no_other(make) -> None:
    clipper = make(per="layer")
    found = []
    for i, norm in enumerate(SPIKES):
        layers = {"a.w": vector(norm)}
        new = {"0.w": vector(5.0 * norm)} if i >= 20 else {}
        factors = clipper.decide(moment_of_layers({**new, **layers}))[0].factors.tolist()
        found.append(factors)
    assert [factors[-1] for factors in found] == pytest.approx(factors_of(make(), SPIKES))
    added = [5.0 * norm for norm in SPIKES[20:]]
    assert [factors[0] for factors in found[20:]] == pytest.approx(factors_of(make(), added))


@pytest.mark.parametrize(
    "model",
    [
        torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)),
        torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2)),
        torch.nn.Sequential(
            torch.nn.ConvTranspose1d(2, 6, 3), torch.nn.Flatten(), torch.nn.Linear(36, 2)
        ),
    ],
    ids=["linear", "conv", "transposed conv"],
)
def test_agc_is_the_published_formula_but_for_vectors_and_the_head(model) -> None:
    shape = (3, 4) if isinstance(model[0], torch.nn.Linear) else (3, 2, 4)
    model(torch.randn(shape)).square().sum().backward()
    roster = roster_of(model, torch.optim.SGD(model.parameters(), lr=0.1), {})
    axis = 1 if isinstance(model[0], torch.nn.ConvTranspose1d) else 0
    weight, gradient = model[0].weight, model[0].weight.grad
    expected = agc(gradient.movedim(axis, 0), weight.detach().movedim(axis, 0))
    others = [p.grad.clone() for p in (model[0].bias, *model[-1].parameters())]
    gradients = Gradients.of(roster)
    clip_(gradients, AGC().decide(Moment(step=0, gradients=gradients)))
    np.testing.assert_allclose(model[0].weight.grad.movedim(axis, 0), expected, rtol=1e-5)
    for now, before in zip((model[0].bias, *model[-1].parameters()), others, strict=True):
        assert torch.equal(now.grad, before)


def test_agc_has_nothing_to_say_about_vectors_alone() -> None:
    assert AGC().decide(moment_of([3.0, 4.0])) == []


def test_agc_lets_zero_weights_move() -> None:
    moment = moment_of(torch.full((2, 2), 0.5), torch.zeros(2, 2))
    clip_(moment.gradients, AGC(0.1, epsilon=0.01).decide(moment))
    assert moment.gradients.tensors[0].norm(dim=1).tolist() == pytest.approx([1e-3, 1e-3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClipNorm(0.0), "`max_norm` must be a number above 0, got 0.0."),
        (lambda: ClipNorm(math.nan), "`max_norm` must be a number above 0, got nan."),
        (
            lambda: ClipNorm(per="tensor"),
            "`per` must be 'model', 'group', 'layer' or 'unit', got 'tensor'.",
        ),
        (lambda: ClipValue(-1), "`max_value` must be a number above 0, got -1."),
        (lambda: AutoClip(0), "`percentile` must be a number above 0, got 0."),
        (lambda: AutoClip(101), "`percentile` must be at most 100, got 101."),
        (lambda: AutoClip("10"), "`percentile` must be a number above 0, got '10'."),
        (lambda: AutoClip(window=True), "`window` must be a whole number of at least 1, got True."),
        (lambda: Robust(ceiling=None), "`ceiling` must be a number above 0, got None."),
        (lambda: AutoClip(window=0.5), "`window` must be a whole number of at least 1, got 0.5."),
        (lambda: ZClip(0), "`z_threshold` must be a number above 0, got 0."),
        (lambda: ZClip(decay=1.0), "`decay` must be between 0 and 1, got 1.0."),
        (lambda: ZClip(max_norm=0), "`max_norm` must be a number above 0, got 0."),
        (lambda: ZClip(warmup_steps=0), "`warmup_steps` must be a number above 0, got 0."),
        (lambda: AGC(0), "`clipping` must be a number above 0, got 0."),
        (lambda: AGC(epsilon="x"), "`epsilon` must be a number above 0, got 'x'."),
    ],
)
def test_what_is_out_of_range_is_refused_with_what_came(make, message) -> None:
    with pytest.raises(ValueError, match="got") as caught:
        make()
    assert str(caught.value) == message
