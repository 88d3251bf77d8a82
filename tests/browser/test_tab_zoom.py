"""The tab asks for what was chosen, and shows that and nothing else."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from playwright.sync_api import expect

from lightning_gradguard.history.storage import Entry
from lightning_gradguard.history.writer import Writer
from lightning_gradguard.schema import HISTOGRAM_BINS, HISTOGRAM_FIRST
from tests.browser.conftest import STEPS, choose, pixels
from tests.strategies import make_frame
from tests.unit.test_colours import colours, constant

pytestmark = pytest.mark.slow

SIZES = {0: 1.0, 1: 1024.0}
"""Gradient norm of the layer that two optimizers share."""


@pytest.fixture(scope="session")
def shared(logs):
    """Write a run whose two optimizers have a layer of one name; return its name."""
    writer = Writer(logs / "shared" / "gradguard" / "history.sqlite")
    for step in range(STEPS):
        for index, size in SIZES.items():
            frame = make_frame(step, [size, size], layers=("a", "b"), optimizer_index=index)
            writer.add(Entry(frame))
    writer.close("finished")
    return "shared"


@pytest.fixture(scope="session")
def moving(logs):
    """Write a run whose first layer shrinks while its second grows; return its name."""
    writer = Writer(logs / "moving" / "gradguard" / "history.sqlite")
    for step in range(STEPS):
        counts = np.zeros((2, HISTOGRAM_BINS))
        high = step >= STEPS // 2
        counts[0, HISTOGRAM_FIRST + (40 if high else 44)] = 8.0
        counts[1, HISTOGRAM_FIRST + (44 if high else 40)] = 8.0
        writer.add(Entry(make_frame(step, [1.0, 1.0], layers=("shrinks", "grows"),
                                    log2_histogram=counts)))  # fmt: skip
    writer.close("finished")
    return "moving"


def asked(watched, route):
    """Return what the page asked a route for, oldest first."""
    found = [urlsplit(url) for url in watched.requests if f"/gradguard/{route}?" in url]
    return [{key: value for key, (value,) in parse_qs(url.query).items()} for url in found]


def across(tab, share):
    """Return a place at a share of the first picture's steps, in pixels of its width."""
    wide = tab.locator(".gg-map canvas").first.evaluate("canvas => canvas.clientWidth")
    left = min(230, round(0.3 * wide))
    return left + share * (wide - left - 10)


def drag(watched, tab, first, last):
    """Draw the pointer over steps of the first picture."""
    box = tab.locator(".gg-map canvas").first.bounding_box()
    y = box["y"] + box["height"] / 2
    watched.page.mouse.move(box["x"] + across(tab, first / STEPS), y)
    watched.page.mouse.down()
    watched.page.mouse.move(box["x"] + across(tab, last / STEPS), y, steps=4)
    watched.page.mouse.up()
    expect(tab.get_by_role("button", name="All steps")).to_be_visible()
    expect(tab.locator(".gg-maps[aria-busy]")).to_have_count(0)


def told_at(tab, share):
    """Return what is said of the first layer at a share of the picture's width."""
    tab.locator(".gg-map canvas").first.hover(position={"x": across(tab, share), "y": 20})
    return tab.locator(".gg-readout").first.inner_text()


def test_a_zoom_asks_for_its_steps_and_shows_them_and_no_others(watched, opened):
    tab = opened("wide")  # its first layer is ten times larger at each step
    assert {"first", "last"}.isdisjoint(asked(watched, "heatmap")[-1])
    drag(watched, tab, 10, 20)
    question = asked(watched, "heatmap")[-1]
    assert (question["first"], question["last"]) == ("10", "20")
    assert told_at(tab, 0.5 / 11).startswith("falling, step 10: ")
    assert told_at(tab, 10.5 / 11).startswith("falling, step 20: ")
    seen = {tuple(pixels(tab, (k + 0.5) / 11, 0.25)) for k in range(11)}
    assert len(seen) == 11
    assert pixels(tab, 0.5 / 11, 0.25) == [68, 1, 84]  # the range is that of what is shown
    tab.get_by_role("button", name="All steps").click()
    expect(tab.locator("[data-control=all]")).to_have_count(0)
    assert {"first", "last"}.isdisjoint(asked(watched, "heatmap")[-1])
    assert told_at(tab, 0.5 / STEPS).startswith("falling, step 0: ")


def test_a_chosen_optimizer_is_kept_by_all_that_is_asked_and_shown(watched, opened, shared):
    tab = opened(shared)
    assert told_at(tab, 0.1) == "a, step 4: 1"
    choose(tab, "optimizer", "1")
    expect(tab.locator("[data-control=optimizer]")).to_have_value("1")
    expect(tab.locator(".gg-maps[aria-busy]")).to_have_count(0)
    assert told_at(tab, 0.1) == "a, step 4: 1000"
    tab.locator(".gg-map canvas").click(position={"x": across(tab, 0.5), "y": 20})
    expect(tab.locator(".gg-detail h2 code")).to_have_text("a")
    expect(tab.locator(".gg-detail .uplot").first).to_be_visible()
    drag(watched, tab, 10, 20)
    chart = tab.locator(".gg-detail .gg-chart", has_text="grad norm").first
    chart.locator(".u-over").hover(position={"x": 60, "y": 20})
    expect(chart.locator(".gg-value")).to_contain_text("1024 at step")
    for route in ("heatmap", "scalars", "lines", "histogram"):
        assert asked(watched, route)[-1]["optimizer"] == "1", route
    assert asked(watched, "heatmap")[-1]["first"] == "10"


def bins(tab):
    """Return whether the lowest and the highest octave are filled, early and late."""
    return tab.locator(".gg-detail figure > canvas").evaluate(
        """(canvas) => {
          const ratio = canvas.width / canvas.clientWidth, inner = canvas.clientWidth - 72;
          const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const at = (x, y) => data[4 * (Math.floor((8 + y * 122) * ratio) * canvas.width
            + Math.floor((62 + x * inner) * ratio)) + 3] > 0;
          return [0.25, 0.75].map((x) => [0.9, 0.1].map((y) => at(x, y)));
        }"""
    )


def test_a_histogram_over_time_is_that_of_its_layer(opened, moving):
    high_then_low = [[False, True], [True, False]]
    assert bins(opened(moving, layer="shrinks")) == high_then_low
    low_then_high = high_then_low[::-1]
    assert bins(opened(moving, layer="grows")) == low_then_high


@pytest.mark.parametrize(("mode", "name"), [("plain", "VIRIDIS"), ("median", "AROUND")])
def test_the_colours_drawn_are_those_that_were_chosen(opened, mode, name):
    tab = opened("fading")
    choose(tab, "mode", mode)
    expect(tab.locator(".gg-maps[aria-busy]")).to_have_count(0)
    bar = tab.locator(".gg-legend canvas")
    drawn = bar.evaluate(
        "bar => [...bar.getContext('2d').getImageData(0, 6, bar.width, 1).data]"
        ".filter((_, i) => i % 4 < 3)"
    )
    drawn = np.array(drawn).reshape(-1, 3)
    assert np.abs(drawn - colours(name, shares=len(drawn))).max() <= 0.5
    swatches = tab.locator(".gg-legend .gg-swatch").evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor)"
    )
    told = [f"rgb({', '.join(str(int(part)) for part in constant(name))})"
            for name in ("ZERO", "NONFINITE")]  # fmt: skip
    assert swatches[:2] == told
