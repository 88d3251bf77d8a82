"""The tab "Gradient health", in TensorBoard, in a browser."""

from __future__ import annotations

import json
import time
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect
from torch.utils.tensorboard import SummaryWriter

from lightning_gradguard.events import Observation
from lightning_gradguard.history.storage import Entry
from lightning_gradguard.sinks import TensorBoardSink
from tests.browser.conftest import (
    CROWD,
    FAULT,
    HOSTILE,
    STEPS,
    choose,
    frame_of,
    pixels,
    served,
    write,
)

pytestmark = pytest.mark.slow


def picture(tab, number=0):
    """Return what a heatmap shows, as text."""
    return tab.locator(".gg-map canvas").nth(number).evaluate("canvas => canvas.toDataURL()")


def height(tab):
    return tab.locator(".gg-map canvas").first.evaluate("canvas => canvas.clientHeight")


@pytest.mark.parametrize("loader", ["fast", "slow"])
def test_the_tab_is_there_and_lists_the_runs(loader, watched, opened):
    tab = opened(loader=loader)
    expect(watched.page.get_by_text("Gradient health", exact=False).first).to_be_visible()
    options = tab.locator("[data-control=run] option")
    assert {"fading", "healthy", "hostile"} <= set(options.all_inner_texts())
    own = {url.split("/")[2] for url in watched.requests if url.startswith("http")}
    assert len(own) == 1  # nothing comes from elsewhere


def test_a_finding_is_listed_with_evidence_and_advice(opened):
    tab = opened("fading")
    expect(tab.locator(".gg-verdict-line")).to_contain_text("vanishing")
    item = tab.locator(".gg-finding")
    for text in (FAULT.message, FAULT.advice, "step 12", "since step 7", "9 decades, limit 4"):
        expect(item).to_contain_text(text)
    expect(tab.locator(".gg-actions")).to_contain_text("loss is NaN")


def test_a_click_on_a_layer_opens_its_lines_and_its_histogram(opened):
    tab = opened("fading")
    canvas = tab.locator(".gg-map canvas")
    canvas.click(position={"x": 700, "y": height(tab) / 2})
    expect(tab.locator(".gg-detail h2 code")).to_contain_text("body.")
    titles = tab.locator(".gg-detail figcaption")
    expect(titles.filter(has_text="grad norm").first).to_be_visible()
    expect(titles.filter(has_text="log2 histogram")).to_be_visible()
    tab.get_by_role("button", name="Close").click()
    expect(tab.locator(".gg-detail h2")).to_have_count(0)


def test_the_layer_of_a_finding_opens_from_the_list(opened):
    tab = opened("fading")
    tab.locator(".gg-finding button").click()
    expect(tab.locator(".gg-detail h2 code")).to_have_text("body.0.fc")


def test_zero_and_what_is_not_finite_have_colours_of_their_own(opened):
    tab = opened("hostile")  # its rows: zero, infinite, one, rising
    assert pixels(tab, 0.5, 0.125) == [0, 0, 0]
    assert pixels(tab, 0.5, 0.375) == [255, 0, 255]
    assert pixels(tab, 0.5, 0.625) not in ([0, 0, 0], [255, 0, 255])


def test_a_zero_and_a_spike_in_one_column_are_both_seen(opened):
    tab = opened("crowded")
    usual, spike = pixels(tab, 0.25, 0.1), pixels(tab, 1202 / CROWD, 0.1)
    assert pixels(tab, 0.25, 0.4) == usual
    assert spike != usual
    assert pixels(tab, 1202 / CROWD, 0.4) == [0, 0, 0]
    assert (pixels(tab, 1802 / CROWD, 0.1), pixels(tab, 1802 / CROWD, 0.4)) == (
        spike,
        [255, 0, 255],
    )
    canvas = tab.locator(".gg-map canvas")
    wide = canvas.evaluate("c => c.clientWidth")
    left = min(230, round(0.3 * wide))
    canvas.hover(position={"x": left + (wide - left - 10) * 1202 / CROWD, "y": 26})
    expect(tab.locator(".gg-readout")).to_contain_text("and exactly 0 at times")


def test_a_guard_that_acted_at_every_step_is_counted(opened):
    tab = opened("crowded")
    expect(tab.locator(".gg-actions tr").nth(1)).to_contain_text("clip")
    cells = tab.locator(".gg-actions tr").nth(1).locator("td").all_inner_texts()
    assert cells[1:4] == [str(CROWD), "0", str(CROWD - 1)]


def test_a_finding_is_marked_at_its_step_and_at_its_layers_and_nowhere_else(opened):
    tab = opened("fading")  # of its eight layers the first and the third are concerned
    error, at = [213, 94, 0], 12.5 / STEPS
    assert pixels(tab, at, 0.5 / 8) == pixels(tab, at, 2.5 / 8) == error
    assert pixels(tab, at, 1.5 / 8) != error
    assert pixels(tab, 0.8, 0.5 / 8) != error
    assert (
        pixels(tab, at, -6 / (tab.locator(".gg-map canvas").evaluate("c => c.clientHeight") - 36))
        == error
    )


@pytest.mark.parametrize(
    "change", [("statistic", "param_norm"), ("mode", "median"), ("mode", "last")]
)
def test_other_numbers_and_colours_are_another_picture(opened, change):
    tab = opened("fading")
    before = picture(tab)
    choose(tab, *change)
    expect(tab.locator("[data-control=statistic]")).to_be_enabled()
    tab.locator("main").evaluate("() => new Promise(done => setTimeout(done, 1000))")
    assert picture(tab) != before


def test_layers_are_filtered_and_folded(opened):
    tab = opened("fading")
    whole = height(tab)
    tab.get_by_role("button", name="Fold all", exact=True).click()
    assert height(tab) < whole
    tab.get_by_role("button", name="Unfold all").click()
    assert height(tab) == whole
    tab.locator("[data-control=filter]").fill("body.2")
    assert height(tab) < whole


def test_two_runs_stand_side_by_side(opened):
    tab = opened("fading")
    choose(tab, "other", "healthy")
    expect(tab.locator(".gg-map h2")).to_have_text(["fading", "healthy"])
    assert picture(tab, 0) != picture(tab, 1)


def test_a_run_that_cannot_be_read_says_so_and_hides_no_other(opened):
    tab = opened("aaa-damaged")
    expect(tab.locator(".gg-message")).to_contain_text("aaa-damaged: ")
    expect(tab.locator(".gg-message")).to_contain_text("no SQLite file")
    choose(tab, "run", "healthy")
    expect(tab.locator(".gg-map h2")).to_have_text("healthy")
    choose(tab, "other", "aaa-damaged")
    expect(tab.locator(".gg-message")).to_contain_text("no SQLite file")
    expect(tab.locator(".gg-map h2")).to_have_text("healthy")


def test_a_run_that_is_not_there_is_named(opened):
    expect(opened("gone").locator(".gg-message")).to_contain_text("There is no run gone here")


def test_a_layer_over_thirty_decades_is_drawn_and_its_zeros_are_counted(opened):
    tab = opened("wide", layer="falling")
    titles = tab.locator(".gg-detail figcaption")
    expect(titles.filter(has_text="grad norm (5 exactly zero)").first).to_be_visible()
    axis = tab.locator(".gg-detail .uplot")
    expect(axis.first).to_be_visible()


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 1, 2], ["0", "1", "2"]),
        ([3.6e-5, 3.8e-5, 4.0e-5], ["3.6e-5", "3.8e-5", "4.0e-5"]),
        ([10, 10.5, 11], ["10", "10.5", "11"]),
        ([1e-8, None, 1e6], ["1e-8", "", "1e+6"]),
        ([0.00501, 0.00631], ["0.005", "0.006"]),
    ],
)
def test_no_two_ticks_of_an_axis_have_one_label(values, texts, opened):
    found = (
        opened("fading")
        .locator("main")
        .evaluate(
            """async (_, values) => {
          const base = document.querySelector("script[src], link[href]");
          const charts = await import(new URL("charts.js", base.src || base.href));
          return charts.tickTexts(values);
        }""",
            values,
        )
    )
    assert found == texts


def test_gradients_over_time_steps_are_drawn_for_recurrent_layers_alone(opened):
    tab = opened("crowded", layer="odd")
    figure = tab.locator(".gg-detail figcaption", has_text="gradient of its input, by time step")
    expect(figure).to_be_visible()
    colours = (
        figure.locator("xpath=..")
        .locator("canvas")
        .evaluate(
            """(canvas) => {
          const copy = document.createElement("canvas");
          [copy.width, copy.height] = [canvas.width, canvas.height];
          const pen = copy.getContext("2d", {willReadFrequently: true});
          pen.drawImage(canvas, 0, 0);
          return [0.2, 0.7].map((y) => [...pen.getImageData(
            canvas.width / 2, y * canvas.height, 1, 1).data].slice(0, 3));
        }"""
        )
    )
    assert colours[0] != colours[1]
    tab = opened("crowded", layer="plain")
    expect(tab.locator(".gg-detail figcaption", has_text="grad norm").first).to_be_visible()
    expect(tab.locator(".gg-detail figcaption", has_text="by time step")).to_have_count(0)


def test_a_layer_that_is_always_zero_says_so(opened):
    tab = opened("wide", layer="still")
    zeros = tab.locator(".gg-chart", has_text=f"grad norm ({STEPS} exactly zero)").first
    expect(zeros).to_contain_text("exactly zero, whenever it was measured")


@pytest.mark.parametrize("link", [{}, {"layer": "critic.1"}])
def test_layers_of_a_second_optimizer_are_found(link, opened):
    tab = opened("two", **link)
    if not link:
        tab.locator(".gg-finding button").click()
    expect(tab.locator(".gg-detail h2 code")).to_have_text(link.get("layer", "critic.0"))
    expect(tab.locator("[data-control=optimizer]")).to_have_value("1")
    expect(tab.locator(".gg-chart").first).to_be_visible()


def test_keys_where_the_filter_finds_nothing_do_nothing(opened):
    tab = opened("fading")
    tab.locator("[data-control=filter]").fill("no such layer")
    expect(tab.locator(".gg-readout")).to_have_text("No layer has that in its name.")
    for key in ("ArrowDown", "Enter", " ", "+"):
        tab.locator(".gg-map canvas").press(key)
    tab.locator("[data-control=filter]").fill("")
    tab.locator(".gg-map canvas").press("Home")
    expect(tab.locator(".gg-readout")).to_contain_text("body.0.fc")


def test_another_run_is_shown_with_all_its_steps(opened):
    tab = opened("fading")
    tab.locator(".gg-map canvas").press("+")
    expect(tab.get_by_role("button", name="All steps")).to_be_visible()
    choose(tab, "run", "healthy")
    expect(tab.locator(".gg-map h2")).to_have_text("healthy")
    expect(tab.get_by_role("button", name="All steps")).to_have_count(0)


def test_a_drag_over_the_picture_or_a_chart_is_a_zoom(watched, opened):
    tab = opened("fading")
    for place in (".gg-map canvas", ".gg-steps .u-over"):
        box = tab.locator(place).first.bounding_box()
        middle = box["y"] + box["height"] / 2
        watched.page.mouse.move(box["x"] + 0.5 * box["width"], middle)
        watched.page.mouse.down()
        watched.page.mouse.move(box["x"] + 0.8 * box["width"], middle, steps=4)
        watched.page.mouse.up()
        tab.get_by_role("button", name="All steps").click()
        expect(tab.get_by_role("button", name="All steps")).to_have_count(0)


def test_the_pointer_on_a_mark_tells_what_it_is(opened):
    tab = opened("fading")
    canvas = tab.locator(".gg-map canvas")
    box = canvas.bounding_box()
    left = min(230, round(0.3 * box["width"]))
    x = left + (12.5 / STEPS) * (box["width"] - left - 10)
    canvas.hover(position={"x": x, "y": 8})
    expect(tab.locator(".gg-readout")).to_contain_text(
        f"step 12: vanishing opened, {FAULT.message}"
    )


def test_the_keyboard_does_what_the_pointer_does(opened):
    tab = opened("healthy")
    canvas = tab.locator(".gg-map canvas")
    canvas.focus()
    for key in ("Home", "ArrowDown", "ArrowRight"):
        canvas.press(key)
    expect(tab.locator(".gg-readout")).to_have_text("body.0.norm, step 1: 1")
    canvas.press("Enter")
    expect(tab.locator(".gg-detail h2 code")).to_have_text("body.0.norm")
    canvas.press("+")
    expect(tab.get_by_role("button", name="All steps")).to_be_visible()
    tab.locator(".gg-map canvas").press("0")
    expect(tab.get_by_role("button", name="All steps")).to_have_count(0)


def test_a_link_leads_to_a_layer_of_a_run(opened):
    tab = opened("healthy", layer="body.1.fc")
    expect(tab.locator(".gg-map h2")).to_have_text("healthy")
    expect(tab.locator(".gg-detail h2 code")).to_have_text("body.1.fc")


def test_another_link_in_the_same_window_leads_to_its_layer(watched, opened):
    tab = opened("healthy", layer="body.1.fc")
    link = "gradguard&p.gradguard.run=fading&p.gradguard.layer=body.2.fc&p.gradguard.step=12"
    watched.page.evaluate(f"location.hash = '{link}'")
    expect(tab.locator(".gg-map h2")).to_have_text("fading")
    expect(tab.locator(".gg-detail h2 code")).to_have_text("body.2.fc")


def test_the_picture_keeps_the_focus_when_it_is_drawn_again(watched, opened):
    tab = opened("fading")
    tab.locator(".gg-map canvas").focus()
    watched.page.locator(".reload-button").evaluate("button => button.click()")
    tab.locator("main").evaluate("() => new Promise(done => setTimeout(done, 1500))")
    expect(tab.locator(".gg-map canvas")).to_be_focused()


def test_it_is_dark_where_tensorboard_is(watched, opened):
    tab = opened("fading")
    watched.page.evaluate("document.body.classList.add('dark-mode')")
    colour = "body => getComputedStyle(body).backgroundColor"
    expect(tab.locator("html.gg-dark")).to_be_attached()
    assert tab.locator("body").evaluate(colour) == "rgb(48, 48, 48)"


@pytest.mark.parametrize("loader", ["fast", "slow"])
def test_a_reload_shows_what_a_run_has_written_since(loader, watched, opened, logs):
    layers, name = ("a", "b"), f"live-{loader}"
    writer = write(logs / name, lambda _: [1.0, 2.0], layers)
    writer.flush()
    tab = opened(name, loader)
    expect(tab.locator(".gg-verdict-line")).to_contain_text(f"steps 0 to {STEPS - 1}")
    for step in range(STEPS, 2 * STEPS):
        writer.add(Entry(frame_of(step, [1.0, 2.0], layers)))
    writer.flush()
    watched.page.locator(".reload-button").click()
    expect(tab.locator(".gg-verdict-line")).to_contain_text(f"steps 0 to {2 * STEPS - 1}")
    writer.close("finished")


def test_names_from_a_model_are_text_and_nothing_else(watched, opened):
    tab = opened("hostile", layer=HOSTILE[0].replace("&", "%26"))
    expect(tab.locator(".gg-detail h2 code")).to_have_text(HOSTILE[0])
    expect(tab.locator(".gg-finding")).to_contain_text(r"\u001b[2J")
    assert tab.locator("img").count() == 0
    assert tab.locator("main").evaluate("() => window.hits") == 0


@pytest.mark.parametrize("loader", ["fast", "slow"])
def test_tensorboard_lists_the_tab_by_the_event_file_alone(loader, tmp_path):
    with SummaryWriter(str(tmp_path / "run")) as writer:
        TensorBoardSink(writer).emit(Observation(frame=frame_of(0, [1.0, 2.0], ("a", "b"))))
    until, enabled = time.monotonic() + 60.0, False
    with served(tmp_path, loader) as address:
        while not enabled and time.monotonic() < until:
            with urlopen(f"{address}/data/plugins_listing") as answer:  # noqa: S310 - our own
                enabled = json.load(answer)["gradguard"]["enabled"]
    assert enabled
