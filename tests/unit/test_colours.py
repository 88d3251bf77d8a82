"""Whoever looks at the picture, also without one kind of cone, sees in it what is meant."""

from __future__ import annotations

import re
from importlib import resources

import numpy as np
import pytest

from tests.colour_vision import VISIONS, distance, lab_of

STATIC = resources.files("lightning_gradguard.tensorboard_plugin") / "static"
APART = 10.0
"""Ten times what is just seen where colours touch, as these may not."""


def source(name):
    return (STATIC / name).read_text(encoding="utf-8")


def constant(name):
    """Return the numbers of a constant of the page."""
    (text,) = re.findall(rf"const {name} = ([^;]*);", source("colour.js"))
    return np.array([float(number) for number in re.findall(r"[\d.]+", text)])


def colours(name, shares=257):
    """Return the colours of a map from its low to its high end."""
    stops = constant(name).reshape(-1, 3)
    place = np.linspace(0.0, len(stops) - 1.0, shares)
    return np.array([np.interp(place, range(len(stops)), part) for part in stops.T]).T


def grounds():
    """Return what is behind the picture, and what is written on it, by what chose it."""
    rules = re.findall(
        r"--gg-paper: #(\w+); --gg-ink: #(\w+)", source("style.css").replace("#fff;", "#ffffff;")
    )
    assert len(rules) == 4
    return [tuple(np.array(list(bytes.fromhex(text)), float) for text in rule) for rule in rules]


MAPS = ["VIRIDIS", "AROUND"]
EYES = pytest.mark.parametrize("eyes", VISIONS)


@pytest.mark.parametrize(
    ("one", "other", "published"),
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 2.5, 0.0), (50.0, 0.0, -2.5), 4.3065),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_yardstick_is_the_published_one(one, other, published):
    assert distance(one, other) == pytest.approx(published, abs=5e-5)
    assert distance(other, one) == pytest.approx(published, abs=5e-5)


def test_white_is_white_to_all_eyes():
    for eyes in VISIONS:
        np.testing.assert_allclose(lab_of([255, 255, 255], eyes), [100.0, 0.0, 0.0], atol=0.02)


@EYES
def test_a_larger_number_is_a_lighter_colour(eyes):
    lightness = lab_of(colours("VIRIDIS"), eyes)[:, 0]
    assert (np.diff(lightness) > 0.0).all()
    assert np.ptp(lightness) > 60.0


@EYES
def test_further_from_the_middle_is_darker_on_either_side(eyes):
    lightness = lab_of(colours("AROUND"), eyes)[:, 0]
    middle = len(lightness) // 2
    assert (np.diff(lightness[: middle + 1]) > 0.0).all()
    assert (np.diff(lightness[middle:]) < 0.0).all()


@EYES
def test_more_and_less_than_usual_are_told_apart(eyes):
    seen = lab_of(colours("AROUND"), eyes)
    away = distance(seen, seen[::-1])[: 3 * len(seen) // 8]
    assert away.min() > 2.0 * APART


@EYES
@pytest.mark.parametrize("special", ["ZERO", "NONFINITE"])
@pytest.mark.parametrize("name", MAPS)
def test_zero_and_what_is_not_finite_look_like_no_size(name, special, eyes):
    assert distance(lab_of(constant(special), eyes), lab_of(colours(name), eyes)).min() > APART


@EYES
@pytest.mark.parametrize("name", MAPS)
def test_what_was_not_measured_looks_like_no_size_and_is_hatched(name, eyes):
    (share,) = constant("HATCHING")
    for paper, ink in grounds():
        behind = lab_of(paper, eyes)
        assert distance(behind, lab_of(colours(name), eyes)).min() > APART
        assert distance(behind, lab_of((1.0 - share) * paper + share * ink, eyes)) > APART


@EYES
def test_zero_not_finite_and_not_measured_are_three_things(eyes):
    zero, lost = lab_of(constant("ZERO"), eyes), lab_of(constant("NONFINITE"), eyes)
    assert distance(zero, lost) > 2.0 * APART
    for paper, _ in grounds():
        assert distance(zero, lab_of(paper, eyes)) > APART
        assert distance(lost, lab_of(paper, eyes)) > 2.0 * APART
