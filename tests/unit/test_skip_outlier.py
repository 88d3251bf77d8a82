"""Steps whose gradient is an outlier are left out, until they are a level that has risen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradguard.remedies import SkipOutlier
from lightning_gradguard.remedies.testing import moment_of
from tests.clipping_oracles import CALM, SPIKES, STREAMS, log_center_and_spread, poisoned, skipped

RISEN = [norm * (30.0 if i >= 40 else 1.0) for i, norm in enumerate(CALM)]
STAIRS = [norm * 30.0 ** (i // 30) for i, norm in enumerate(CALM)]
ROWS_OF_NINE = [norm * (40.0 if i >= 40 and i % 10 else 1.0) for i, norm in enumerate(CALM)]
LEVELS = {"risen": RISEN, "stairs": STAIRS, "rows of nine": ROWS_OF_NINE}


def outliers(
    norms, *, z_threshold=6.0, min_factor=4.0, window=128, warmup=20, floor=0.1, patience_steps=10
):
    """The rule, slowly: beyond the threshold and beyond so many times the median."""
    past, row, found = [], [], []
    for i, x in enumerate(np.log(norms)):
        limit = math.inf
        if i >= warmup:
            center, spread = log_center_and_spread(past[-window:], floor)
            limit = center + max(z_threshold * spread, math.log(min_factor))
        if x > limit:
            found.append(i)
            row.append(x)
        else:
            row = []
        past.append(min(x, limit))
        if len(row) == patience_steps:
            past, row = row, []
    return found


@pytest.mark.parametrize("norms", (STREAMS | LEVELS).values(), ids=STREAMS | LEVELS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"z_threshold": 2.0},
        {"min_factor": 60.0},
        {"window": 9},
        {"floor": 1.0},
        {"patience_steps": 3},
        {"patience_steps": 1},
        {"patience_steps": 12, "window": 9},
    ],
    ids=str,
)
def test_an_outlier_is_far_above_the_median_of_the_logarithms(norms, options) -> None:
    assert skipped(SkipOutlier(**options), norms=norms) == outliers(norms, **options)


def test_the_spikes_of_a_stream_are_outliers_and_nothing_else_is() -> None:
    assert skipped(SkipOutlier(), norms=SPIKES) == [30, 31, 55, 80]
    assert skipped(SkipOutlier(), norms=CALM) == []


def test_norms_that_are_not_finite_are_no_outliers_and_teach_nothing() -> None:
    mixed, places = poisoned(SPIKES)
    assert skipped(SkipOutlier(), norms=mixed) == [places[i] for i in (30, 31, 55, 80)]


def test_a_level_that_has_really_risen_is_accepted_after_ten_steps() -> None:
    """Or a run of which nothing is wrong would be ended for leaving too many steps out."""
    assert skipped(SkipOutlier(), norms=RISEN) == list(range(40, 50))
    assert skipped(SkipOutlier(patience_steps=4), norms=RISEN) == list(range(40, 44))


def test_a_usual_norm_between_outliers_begins_a_new_row() -> None:
    norms = [1.0] * 40 + 2 * ([30.0] * 9 + [1.0]) + [30.0] * 12
    assert skipped(SkipOutlier(), norms=norms) == [*range(40, 49), *range(50, 59), *range(60, 70)]


def test_what_follows_is_judged_against_the_new_level() -> None:
    norms = [1.0] * 40 + [30.0] * 12 + [1000.0, 30.0, 1.0] + [30.0] * 3
    assert skipped(SkipOutlier(), norms=norms) == [*range(40, 50), 52]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_what_is_no_norm_neither_counts_as_an_outlier_nor_ends_their_row(bad) -> None:
    norms = [1.0] * 40 + [30.0] * 6 + [bad] * 15 + [30.0] * 10
    assert skipped(SkipOutlier(), norms=norms) == [*range(40, 46), *range(61, 65)]


@pytest.mark.parametrize("scale", [1e-12, 0.25, 1024.0, 1e9])
def test_rescaling_all_norms_moves_no_outlier_and_no_level(scale) -> None:
    for norms in LEVELS.values():
        found = skipped(SkipOutlier(), norms=[scale * norm for norm in norms])
        assert found == skipped(SkipOutlier(), norms=norms)


def test_an_outlier_teaches_no_more_than_the_limit() -> None:
    """So that half a window is needed for each factor of four, and not for the whole rise."""
    norms, options = [1.0] * 60 + [100.0] * 100, {"window": 40, "patience_steps": 1000}
    found = skipped(SkipOutlier(**options), norms=norms)
    assert found == outliers(norms, **options)
    assert len(found) == 63


def test_another_look_at_a_step_teaches_an_outlier_rule_nothing() -> None:
    once, twice = SkipOutlier(), SkipOutlier()
    for norm in RISEN[:45]:
        assert once.decide(moment_of([norm]))[0].when == twice.decide(moment_of([norm]))[0].when
        twice.decide(moment_of([1e3 * norm], is_first_look=False))
    assert once.state_dict() == twice.state_dict()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SkipOutlier(0), "`z_threshold` must be a number above 0, got 0."),
        (lambda: SkipOutlier(min_factor=-1), "`min_factor` must be a number above 0, got -1."),
        (lambda: SkipOutlier(floor=0.0), "`floor` must be a number above 0, got 0.0."),
        (
            lambda: SkipOutlier(patience_steps=0),
            "`patience_steps` must be a whole number of at least 1, got 0.",
        ),
    ],
)
def test_bad_options_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match="got") as caught:
        make()
    assert str(caught.value) == message
