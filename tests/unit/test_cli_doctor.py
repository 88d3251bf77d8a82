"""``gradguard doctor`` says what is there, and what stands in the way of the tab."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_gradguard.cli import doctor, main
from lightning_gradguard.errors import GradGuardError
from tests.histories import StoredRun
from tests.strategies import make_frame

WORKING = EntryPoint("gradguard", "lightning_gradguard.schema:scalar_key", "tensorboard_plugins")
MISSING = EntryPoint("gradguard", "lightning_gradguard.no_such_module", "tensorboard_plugins")
OTHER = EntryPoint("profile", "no_such_package.plugin", "tensorboard_plugins")


@pytest.fixture(autouse=True)
def plugins(monkeypatch):
    """Let the environment have these plugins of TensorBoard; torch is there already in a test."""
    found = [OTHER, WORKING]
    monkeypatch.setattr(metadata, "entry_points", lambda **_: found)
    monkeypatch.setattr(doctor, "_HEAVY", ())
    monkeypatch.delenv("GRADGUARD_DISABLE", raising=False)
    return found


def checks(capsys, *options):
    code = main(["doctor", "--json", *options])
    said = json.loads(capsys.readouterr().out)
    assert code == (1 if said["problems"] else 0)
    assert said["problems"] == sum(check["status"] == "problem" for check in said["checks"])
    return [(check["about"], check["status"], check["text"]) for check in said["checks"]]


def test_all_is_well_where_all_is_well(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "gradguard: nothing is wrong"
    assert f"  ok       torch {metadata.version('torch')}" in out
    assert "TensorBoard's tab loads in" in out


def test_what_is_needed_and_missing_is_a_problem(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_NEEDED", ("no-such-distribution",))
    text = "no-such-distribution is not installed, and is needed: pip install no-such-distribution"
    assert ("version", "problem", text) in checks(capsys)


def test_what_is_optional_and_missing_is_a_note(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_OPTIONAL", {"no-such-distribution": "wings"})
    text = "no-such-distribution is not installed; it would give wings"
    assert ("version", "note", text) in checks(capsys)


@pytest.mark.parametrize(("value", "is_told"), [("1", True), ("0", False), ("off", False)])
def test_the_switch_that_turns_all_off_is_told(value, is_told, capsys, monkeypatch):
    monkeypatch.setenv("GRADGUARD_DISABLE", value)
    assert any(about == "environment" for about, _, _ in checks(capsys)) is is_told


def test_a_tab_that_tensorboard_does_not_know_is_a_problem(capsys, plugins):
    plugins.remove(WORKING)
    assert [status for about, status, _ in checks(capsys) if about == "plugin"] == ["problem"]


def test_a_tab_that_cannot_be_loaded_is_a_problem(capsys, plugins):
    plugins[:] = [MISSING]
    ((status, text),) = [check[1:] for check in checks(capsys) if check[0] == "plugin"]
    assert status == "problem"
    assert text.startswith("The tab cannot be loaded: ModuleNotFoundError: No module named")


def test_a_tab_that_loads_torch_is_a_problem(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_HEAVY", ("torch",))
    assert ("plugin", "problem", "Loading the tab loads torch, which slows TensorBoard down.") in (
        checks(capsys)
    )


def beneath(files, runs, monkeypatch):
    """Let a folder hold histories."""

    def load_run(path):
        if isinstance(runs[path], Exception):
            raise runs[path]
        return runs[path]

    reader = SimpleNamespace(
        HistoryError=GradGuardError, load_run=load_run, find_histories=lambda _: files
    )
    monkeypatch.setitem(sys.modules, "lightning_gradguard.history", reader)


def test_every_history_is_opened_and_told_of(capsys, monkeypatch, tmp_path):
    good, bad = tmp_path / "a", tmp_path / "b"
    good.write_bytes(b"x" * 2_500_000)
    runs = {
        good: StoredRun([make_frame(step) for step in range(12)]),
        bad: GradGuardError(f"{bad}: has format gradguard/9"),
    }
    beneath([good, bad], runs, monkeypatch)
    found = [check[1:] for check in checks(capsys, str(tmp_path)) if check[0] == "history"]
    assert found == [
        ("ok", f"{good}: 12 steps, 2.5 MB, finished"),
        ("problem", f"{bad}: has format gradguard/9"),
    ]


def test_a_folder_without_a_history_is_a_problem(capsys, monkeypatch):
    beneath([], {}, monkeypatch)
    found = [check for check in checks(capsys, "logs") if check[0] == "history"]
    text = "No history beneath logs: the tab stays empty. Is it the log directory?"
    assert found == [("history", "problem", text)]


def test_doctor_looks_without_loading_torch():
    # Read from the source, since torch is here in every test.
    source = Path(doctor.__file__).read_text(encoding="utf-8")
    assert "import torch" not in source
