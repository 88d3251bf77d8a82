"""``gradguard report`` hands runs to the page, and says where it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_gradguard.cli import main
from tests.histories import StoredRun
from tests.strategies import make_finding, make_frame

A = StoredRun([make_frame(0)], path=Path("logs/a/gradguard/history.sqlite"))
B = StoredRun([make_frame(0)], [make_finding()], path=Path("logs/b/gradguard/history.sqlite"))


@pytest.fixture(autouse=True)
def page(stored, monkeypatch):
    """Let a page be the names of its runs."""

    def write_report(runs, path):
        path.write_text(" ".join(run.name for run in runs))

    stored({"a": A, "b": B})
    module = SimpleNamespace(write_report=write_report)
    monkeypatch.setitem(sys.modules, "lightning_gradguard.report.html", module)


def test_runs_are_shown_in_the_order_in_which_they_were_named(tmp_path, capsys):
    target = tmp_path / "page.html"
    assert main(["report", "b", "a", "-o", str(target)]) == 0
    assert target.read_text() == "b a"
    assert capsys.readouterr().out == f"{target}: b, a\n"


def test_without_a_name_it_is_report_html_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["report", "a"])
    assert (tmp_path / "report.html").read_text() == "a"


def test_a_run_that_is_named_twice_is_shown_once(tmp_path):
    main(["report", "a", "b", "a", "-o", str(tmp_path / "x")])
    assert (tmp_path / "x").read_text() == "a b"


def test_fail_on_looks_at_all_runs(tmp_path):
    options = ["-o", str(tmp_path / "x"), "--fail-on", "error"]
    assert main(["report", "a", *options]) == 0
    assert main(["report", "a", "b", *options]) == 1


def test_json_names_the_file_and_the_runs(tmp_path, capsys):
    main(["report", "a", "b", "-o", str(tmp_path / "x"), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == str(tmp_path / "x")
    assert [run["name"] for run in said["runs"]] == ["a", "b"]


def test_a_folder_stands_for_all_runs_beneath_it(tmp_path, monkeypatch):
    files = [tmp_path / "a", tmp_path / "b"]
    reader = SimpleNamespace(
        find_histories=lambda _folder: files, load_run=lambda path, **_: {"a": A, "b": B}[path.name]
    )
    monkeypatch.setitem(sys.modules, "lightning_gradguard.history", reader)
    main(["report", str(tmp_path), str(files[0]), "-o", str(tmp_path / "x")])
    assert (tmp_path / "x").read_text() == "a b"
