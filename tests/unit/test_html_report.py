"""A report holds all it needs, and nothing in it can run but what we wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from lightning_gradguard import schema
from lightning_gradguard.report import html
from tests.unit.test_view import run_of

NAME = "</script><img src=x onerror=alert(1)>"
NONE = (np.zeros(0, np.int64), np.zeros((0, schema.HISTOGRAM_BINS), np.float32))


class Page(HTMLParser):
    """Notes the elements, and what stands in scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.bodies = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] in {"script", "style"}:
            self.bodies.append((self.elements[-1], data))


@pytest.fixture
def page():
    run = run_of(np.ones((3, 2)), layers=(NAME, "=head"), counts=NONE, loss=[1.0, 2.0, 3.0])
    run.name = NAME
    return Page(html.render_report([run, run]))


def test_a_name_from_a_model_never_becomes_an_element(page):
    assert "img" not in [tag for tag, _ in page.elements]


def test_nothing_is_fetched(page):
    assert not [at for _, at in page.elements if {"src", "href"} & set(at)]


def test_every_script_and_style_is_allowed_by_its_hash_alone(page):
    policy = next(at["content"] for _, at in page.elements if "http-equiv" in at)
    assert "unsafe" not in policy
    run = [body for (_, at), body in page.bodies if at.get("type") != "application/json"]
    digests = [
        base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in run if b.strip()
    ]
    assert sorted(digests) == sorted(re.findall(r"sha256-([^']+)'", policy))


def test_the_data_read_back_and_two_runs_of_one_name_are_told_apart(page):
    data = next(b for (_, at), b in page.bodies if at.get("type") == "application/json")
    read = json.loads(data)
    assert [one["name"] for one in read["overviews"]] == [NAME, f"{NAME} (2)"]
    assert read["overviews"][0]["optimizers"][0]["layers"] == [NAME, "=head"]


def test_joined_modules_share_no_name_at_their_top():
    names = re.findall(
        r"^(?:async )?(?:function|const|let|class) (\w+)", html._program(), re.MULTILINE
    )
    assert len(names) == len(set(names))
    assert "import " not in re.sub(r"//.*", "", html._program())


def test_a_report_replaces_the_old_one_as_a_whole(tmp_path):
    run = run_of(np.ones((3, 2)), counts=NONE)
    path = tmp_path / "report.html"
    path.write_text("old")
    html.write_report([run], path)
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_about_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one run"):
        html.render_report([])
