"""Which steps are left out: not finite, an outlier, a spike of the loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_gradguard.remedies import SkipLossSpike, SkipNonFinite, SkipOutlier
from lightning_gradguard.remedies.testing import moment_of
from tests.clipping_oracles import loss_spikes, skipped

NOISE = list(2.0 + 0.1 * np.random.default_rng(3).normal(size=300))
FALLING = [8.0 * 0.99**i + 0.05 * noise for i, noise in enumerate(NOISE)]
BUMPS = [loss + (5.0 if i in {70, 71, 150, 260} else 0.0) for i, loss in enumerate(NOISE)]
BELOW_ZERO = [loss - 30.0 for loss in BUMPS]


@pytest.mark.parametrize(
    ("gradient", "loss", "has_scaler", "expected"),
    [
        (1.0, 1.0, False, False),
        (1.0, None, False, False),
        (math.nan, 1.0, False, True),
        (math.inf, None, False, True),
        (1.0, math.nan, False, True),
        (1.0, -math.inf, False, True),
        (math.inf, 1.0, True, False),
        (math.nan, None, True, False),
        (1.0, math.inf, True, True),
    ],
)
def test_a_step_is_not_finite_by_its_gradients_or_its_loss(
    gradient, loss, has_scaler, expected
) -> None:
    """Under a scaler gradients overflow now and then, and it must see them."""
    loss = None if loss is None else torch.tensor(loss)
    moment = moment_of([gradient, 2.0], loss=loss, has_scaler=has_scaler)
    (decision,) = SkipNonFinite().decide(moment)
    assert decision.when.item() is expected
    assert decision.when.shape == decision.value.shape == ()


def test_a_gradient_whose_square_overflows_float32_is_finite() -> None:
    assert not SkipNonFinite().decide(moment_of([1e20, 1e38]))[0].when


@pytest.mark.parametrize("losses", [NOISE, FALLING, BUMPS, BELOW_ZERO])
@pytest.mark.parametrize("options", [{}, {"sigmas": 2.0}, {"window": 20}, {"warmup_steps": 20}])
def test_a_loss_spike_lies_six_deviations_above_the_mean_of_the_losses_before(
    losses, options
) -> None:
    renamed = {key.removesuffix("_steps"): value for key, value in options.items()}
    assert skipped(SkipLossSpike(**options), losses=losses) == loss_spikes(losses, **renamed)


def test_the_bumps_are_spikes_from_the_64th_loss_on() -> None:
    assert skipped(SkipLossSpike(), losses=BUMPS) == [70, 71, 150, 260]
    early = [loss + (5.0 if i in {63, 64} else 0.0) for i, loss in enumerate(NOISE)]
    assert skipped(SkipLossSpike(), losses=early[:64]) == []
    assert skipped(SkipLossSpike(), losses=[*NOISE[:64], 7.0]) == [64]


def test_losses_that_are_not_finite_are_no_spikes_and_teach_nothing() -> None:
    mixed = [x for i, loss in enumerate(BUMPS) for x in ([math.nan, loss] if i == 20 else [loss])]
    mixed[200:200] = [math.inf]
    assert skipped(SkipLossSpike(), losses=mixed) == [71, 72, 151, 262]


def test_the_limit_that_is_told_is_the_one_of_the_rule() -> None:
    remedy = SkipLossSpike()
    skipped(remedy, losses=NOISE[:100])
    (decision,) = remedy.decide(moment_of([1.0], loss=torch.tensor(9.0)))
    past = NOISE[:100]
    assert decision.limit.item() == pytest.approx(np.mean(past) + 6.0 * np.std(past, ddof=1))
    assert decision.value.item() == 9.0


def test_without_a_loss_there_is_nothing_to_say() -> None:
    assert SkipLossSpike().decide(moment_of([1.0])) == ()


def test_another_look_at_a_step_teaches_a_loss_rule_nothing() -> None:
    once, twice = SkipLossSpike(), SkipLossSpike()
    for loss in map(torch.tensor, BUMPS[:80]):
        once.decide(moment_of([1.0], loss=loss))
        twice.decide(moment_of([1.0], loss=loss))
        twice.decide(moment_of([1.0], loss=3.0 * loss, is_first_look=False))
    assert once.state_dict() == twice.state_dict()


@pytest.mark.parametrize("level", [0.0, 1.0, -3.0, 0.1])
def test_after_equal_losses_a_ripple_is_no_spike(level) -> None:
    losses = [level] * 100 + [level + 1e-7 * abs(level)] * 20
    assert skipped(SkipLossSpike(), losses=losses) == []


def test_losses_of_zero_do_not_forbid_all_others_for_ever() -> None:
    """As a hinge loss has when every example is far enough on its side."""
    assert len(skipped(SkipLossSpike(), losses=[0.0] * 100 + [0.5] * 200)) < 100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SkipLossSpike(math.nan), "`sigmas` must be a number above 0, got nan."),
        (
            lambda: SkipLossSpike(warmup_steps=0),
            "`warmup_steps` must be a whole number of at least 1, got 0.",
        ),
    ],
)
def test_bad_options_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match="got") as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize("make", [SkipNonFinite, SkipOutlier, SkipLossSpike])
def test_no_rule_asks_the_device_for_a_number(make) -> None:
    """A tensor on the device `meta` has none, and to ask for it raises."""
    remedy, loss = make(), torch.ones((), device="meta")
    for step in range(3):
        moment = moment_of(torch.ones(2, device="meta"), step=step, loss=loss)
        assert remedy.decide(moment)[0].when.is_meta


@pytest.mark.parametrize("make", [SkipOutlier, SkipLossSpike])
@pytest.mark.parametrize("window", [0, 0.5])
def test_a_window_is_a_whole_number(make, window) -> None:
    with pytest.raises(ValueError, match=rf"`window` must be .*, got {window}"):
        make(window=window)
