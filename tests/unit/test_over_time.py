"""How much of a gradient is lost between the late and the early time steps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_gradguard.detectors.over_time import decades_over_time

FORGETFUL = np.logspace(-15.0, 0.0, 16)  # medians of the quarters: 5.5e-14 and 5.5e-2


@pytest.mark.parametrize(
    ("profile", "decades"),
    [
        (FORGETFUL, 12.0),
        (FORGETFUL[::-1], -12.0),
        (np.ones(8), 0.0),
        (np.array([1e-3] * 2 + [7.0] * 4 + [1e2] * 2), 5.0),
    ],
)
def test_the_medians_of_the_first_and_the_last_quarter_are_compared(profile, decades) -> None:
    assert decades_over_time(profile) == pytest.approx(decades)


@pytest.mark.parametrize(
    "profile",
    [np.ones(7), np.zeros(8), np.append(np.ones(8), np.inf), np.append(np.ones(8), np.nan)],
    ids=["too short", "nothing at the end", "infinite", "NaN"],
)
def test_it_is_nan_where_it_means_nothing(profile) -> None:
    assert math.isnan(decades_over_time(profile))


def test_time_steps_that_get_nothing_at_all_are_hundreds_of_decades_down() -> None:
    assert decades_over_time(np.repeat([0.0, 1.0], 8)) > 100.0
