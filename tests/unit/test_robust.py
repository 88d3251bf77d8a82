"""Our own clipper: median and spread of the logarithm."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_gradguard.remedies import Robust
from lightning_gradguard.remedies.log_norms import LogNorms
from tests.clipping_oracles import (
    CALM,
    SPIKES,
    STREAMS,
    factors_of,
    let_through,
    limited,
    log_center_and_spread,
    moment_of_layers,
    robust_limits,
)


@pytest.mark.parametrize("norms", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"z_threshold": 1.0},
        {"window": 16},
        {"floor": 0.2},
        {"ceiling": 0.12},
        {"ceiling": math.inf},
        {"window": 5, "z_threshold": 2.0},
    ],
    ids=str,
)
def test_robust_equals_its_formula(norms, options) -> None:
    expected = limited(norms, robust_limits(norms, **options))
    assert let_through(Robust(**options), norms) == pytest.approx(expected)


def test_nothing_is_clipped_before_the_warm_up_is_over() -> None:
    norms = [1.0] * 9 + [1e6, 1e6]
    assert factors_of(Robust(), norms)[:10] == [1.0] * 10
    assert factors_of(Robust(), norms)[10] < 1e-4


def test_the_farther_off_a_norm_the_closer_it_comes_to_the_median() -> None:
    left = [let_through(Robust(), [1.0] * 20 + [size])[-1] for size in (2.0, 10.0, 1e9)]
    assert left == sorted(left, reverse=True)
    assert 1.0 < left[-1] < 1.01
    assert left[0] < math.exp(3 * 0.1) < 2.0


def test_what_is_just_within_the_threshold_is_let_through() -> None:
    inside, outside = math.exp(0.299), math.exp(0.301)
    assert factors_of(Robust(), [1.0] * 20 + [inside])[-1] == 1.0
    assert let_through(Robust(), [1.0] * 20 + [outside])[-1] == pytest.approx(1.349, rel=1e-3)


def test_a_spike_teaches_no_more_than_the_threshold() -> None:
    """A smaller one two steps later would else be usual."""
    first = [*[1.0] * 12, 1e6, 1.0]
    clipper, limited_clipper = Robust(window=8), Robust(window=8)
    factors_of(clipper, first)
    factors_of(limited_clipper, [*[1.0] * 12, math.exp(0.3), 1.0])
    assert factors_of(clipper, [50.0]) == pytest.approx(factors_of(limited_clipper, [50.0]))
    learned, expected = (
        part.state_dict()["numbers"]["logs"] for part in (clipper, limited_clipper)
    )
    assert [x for (x,) in learned] == pytest.approx([x for (x,) in expected])


def test_many_outliers_are_outliers_all_the_same() -> None:
    """Norms that spread over decades would else excuse any norm."""
    norms = [10.0 ** (i * 7 % 10 / 3) for i in range(60)]
    clipped, excused = let_through(Robust(), norms), let_through(Robust(ceiling=math.inf), norms)
    assert max(excused[20:]) > 100.0
    assert max(clipped[20:]) < 2.6 * sorted(norms)[30]


def test_a_ceiling_below_the_floor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`ceiling` must be at least `floor`, 0\.5, got 0\.3"):
        Robust(floor=0.5)


def test_half_of_the_window_cannot_mislead_it() -> None:
    bad = [100.0 if i % 5 == 0 else 1.0 for i in range(60)]
    assert factors_of(Robust(), [*bad, 1e3])[-1] < 0.002


def test_a_level_that_has_risen_becomes_the_usual_one() -> None:
    factors = factors_of(Robust(window=20), [1.0] * 30 + [5.0] * 200)
    assert factors[31] < 0.5
    assert factors[-1] == 1.0


def test_segments_warm_up_apart() -> None:
    clipper = Robust(per="layer")
    for i in range(15):
        late = torch.tensor([1.0]) if i > 10 else None
        clipper.decide(moment_of_layers({"a.w": torch.tensor([1.0]), "b.w": late}))
    spike = {"a.w": torch.tensor([9.0]), "b.w": torch.tensor([9.0])}
    old, new = clipper.decide(moment_of_layers(spike))[0].factors.tolist()
    assert old < 0.2
    assert new == 1.0


def test_center_and_spread_are_those_of_the_logarithms() -> None:
    past = LogNorms(window=100, warmup_steps=2, floor=0.01)
    past.align(["a"], torch.zeros(1, dtype=torch.float64))
    for norm in CALM:
        past.learn(torch.tensor([norm], dtype=torch.float64))
    center, spread, z = past.judge(torch.tensor([3.0], dtype=torch.float64))
    expected = log_center_and_spread([math.log(norm) for norm in CALM], 0.01)
    assert (center.item(), spread.item()) == pytest.approx(expected)
    assert z.item() == pytest.approx((math.log(3.0) - expected[0]) / expected[1])


def test_state_of_another_window_is_refused() -> None:
    clipper = Robust(window=10)
    factors_of(clipper, SPIKES)
    with pytest.raises(ValueError, match=r"`logs` must have 20 rows, got 10: another window\?"):
        Robust(window=20).load_state_dict(clipper.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"z_threshold": 0}, "`z_threshold` must be a number above 0, got 0."),
        ({"floor": -1.0}, "`floor` must be a number above 0, got -1.0."),
        ({"window": 2.5}, "`window` must be a whole number of at least 1, got 2.5."),
        ({"warmup_steps": 0}, "`warmup_steps` must be a number above 0, got 0."),
        ({"per": "row"}, "`per` must be 'model', 'group', 'layer' or 'unit', got 'row'."),
    ],
)
def test_bad_options_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match="got") as caught:
        Robust(**options)
    assert str(caught.value) == message
