"""The tab's routes answer with what a history holds, and with nothing else of the disk."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from lightning_gradguard.history import view
from lightning_gradguard.history.storage import Entry
from lightning_gradguard.history.writer import Writer
from lightning_gradguard.tensorboard_plugin.folders import Folders
from lightning_gradguard.tensorboard_plugin.loader import GradientHealthLoader
from tests.strategies import make_frame

STATIC = resources.files("lightning_gradguard.tensorboard_plugin") / "static"


@pytest.fixture
def tab(tmp_path):
    for name in ("version_0", "version_1"):
        writer = Writer(tmp_path / name / "gradguard" / "history.sqlite")
        for step, norms in enumerate([[1.0, 2.0], [4.0, 0.0]]):
            writer.add(Entry(make_frame(step, norms)))
        writer.close("finished")
    context = SimpleNamespace(logdir=str(tmp_path), flags=SimpleNamespace(logdir_spec=""))
    return GradientHealthLoader().load(context)


def get(tab, route, **query):
    app = tab.get_plugin_apps()[route]
    return Client(app, Response).get("/", query_string=query)


def test_the_runs_beneath_the_log_directory_are_listed(tab):
    answer = get(tab, "/runs").json
    runs = ["version_0", "version_1"]
    assert answer == {"runs": runs, "latest": "version_1", "message": ""}
    assert tab.is_active()


def test_a_large_folder_is_looked_through_behind_tensorboards_back(tmp_path, monkeypatch):
    folders, waiting = Folders(str(tmp_path)), threading.Event()
    monkeypatch.setattr(Folders, "_look", lambda _self: waiting.wait() and [("run", tmp_path)])
    assert not folders.has_runs()
    waiting.set()
    folders._looking.join()
    assert folders.has_runs()


def test_a_heatmap_comes_as_the_view_packs_it(tab):
    body = get(tab, "/heatmap", run="version_1", statistic="grad_norm").data
    _, arrays = view.unpack(body)
    np.testing.assert_array_equal(arrays["cells"], [[0.0, 2.0], [1.0, -np.inf]])


@pytest.mark.parametrize("run", ["../../etc/passwd", "/etc/passwd", "", "version_0/../version_1"])
def test_a_run_is_looked_up_by_name_and_never_becomes_a_path(tab, run):
    answer = get(tab, "/overview", run=run)
    assert answer.status_code == 400
    assert "no run" in answer.json["error"]


def test_only_the_files_of_the_page_are_served(tab):
    served = [route for route in tab.get_plugin_apps() if route.startswith("/static/")]
    assert "/static/index.js" in served
    assert not [route for route in served if ".." in route or "*" in route]
    assert get(tab, "/static/index.js").headers["Content-Type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "query", [{}, {"run": "version_0"}, {"run": "version_0", "statistic": "x"}]
)
def test_a_bad_request_is_answered_in_words(tab, query):
    answer = get(tab, "/heatmap", **query)
    assert answer.status_code == 400
    assert json.loads(answer.data)["error"]


def test_a_remote_log_directory_is_named_as_the_reason():
    folders = Folders("s3://bucket/logs")
    assert folders.message.startswith("s3://bucket/logs is not on this disk")


def test_a_tab_that_cannot_be_made_leaves_tensorboard_running(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_gradguard.tensorboard_plugin.plugin", None)
    assert GradientHealthLoader().load(SimpleNamespace()) is None


def test_what_tensorboard_imports_at_start_loads_neither_torch_nor_lightning():
    code = (
        "import sys, lightning_gradguard.tensorboard_plugin.loader\n"
        "print({'torch', 'lightning', 'pytorch_lightning'} & set(sys.modules))"
    )
    run = [sys.executable, "-c", code]
    found = subprocess.run(run, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert found.stdout == "set()\n"


def test_vendored_files_are_those_whose_hash_is_stated():
    table = (STATIC / "VENDORED.md").read_text()
    stated = re.findall(r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", table, re.MULTILINE)
    assert len(stated) == 2
    for name, digest in stated:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest


def test_runs_of_one_name_beneath_two_log_directories_are_both_there(tmp_path):
    for place in ("a", "b"):
        Writer(tmp_path / place / "version_0" / "gradguard" / "history.sqlite").close("finished")
    folders = Folders("", f"{tmp_path / 'a'},{tmp_path / 'b'}")
    assert list(folders.runs()) == ["version_0", "version_0 (2)"]
