"""The report, opened from disk without a network."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from lightning_gradguard.history import load_run
from lightning_gradguard.report.html import write_report
from tests.browser.conftest import FAULT, HOSTILE

pytestmark = pytest.mark.slow


@pytest.fixture
def report(watched, logs, tmp_path):
    """Write a report about some runs, and open it."""

    def show(*names):
        runs = [load_run(logs / name) for name in names]
        target = tmp_path / "report.html"
        write_report(runs, target)
        for run in runs:
            run.close()
        watched.page.context.set_offline(True)
        watched.page.goto(target.as_uri())
        expect(watched.page.locator("main[data-ready]")).to_be_attached()
        assert watched.requests == [target.as_uri()]
        return watched.page

    return show


def test_it_says_first_how_the_run_went_then_what_to_do_then_shows_it(report):
    page = report("fading")
    parts = page.locator("main > section").evaluate_all(
        "all => all.filter(one => one.clientHeight).map(one => one.className)"
    )
    first = ["gg-verdict", "gg-findings", "gg-controls", "gg-maps"]
    assert [name for name in parts if name in first] == first
    expect(page.locator(".gg-finding")).to_contain_text(FAULT.advice)
    expect(page.locator(".gg-actions")).to_contain_text("loss is NaN")
    expect(page.locator("footer")).to_contain_text("tests.Net")
    expect(page.locator("footer")).to_contain_text("watching took 0.5 ms per step")


def test_a_layer_opens_there_too(report):
    page = report("fading")
    page.locator(".gg-finding button").click()
    expect(page.locator(".gg-detail h2 code")).to_have_text("body.0.fc")
    expect(page.locator(".gg-detail figcaption").first).to_contain_text("log2 histogram")
    expect(page.locator(".gg-detail figcaption").nth(1)).to_contain_text("grad norm")


def test_what_is_special_in_a_layer_is_counted_once(report):
    page = report("crowded")
    page.locator(".gg-map canvas").click(position={"x": 700, "y": 26})
    title = page.locator(".gg-detail figcaption", has_text="grad norm (").first
    expect(title).to_contain_text("(1 not finite, 1 exactly zero)")


def test_several_runs_stand_side_by_side(report):
    page = report("fading", "healthy")
    expect(page.locator(".gg-verdict-line")).to_have_count(2)
    expect(page.locator(".gg-map h2")).to_have_text(["fading", "healthy"])


def test_of_many_runs_each_has_its_verdict_and_the_worst_comes_first(report):
    page = report("healthy", "fading", "hostile")
    lines = page.locator(".gg-verdict-line")
    expect(lines).to_have_count(3)
    expect(lines.nth(0)).to_contain_text("exploding")
    expect(lines.nth(1)).to_contain_text(
        "vanishing in body.0.fc, body.1.fc since step 7, still open"
    )
    lines.nth(1).get_by_role("button").click()
    expect(page.locator(".gg-map h2").first).to_have_text("fading")


def test_names_from_a_model_are_text_and_nothing_else(report):
    page = report("hostile")
    page.locator(".gg-finding button").click()
    expect(page.locator(".gg-detail h2 code")).to_have_text(HOSTILE[0])
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hits") == 0
