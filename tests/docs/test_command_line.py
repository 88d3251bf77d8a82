"""The page of the command line names what there is, and nothing else."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser
from pathlib import Path

import pytest

from lightning_gradguard.audit import Action
from lightning_gradguard.cli import doctor, entry, export, main, outcome, report
from lightning_gradguard.cli.tables import make_table
from tests.histories import StoredRun
from tests.strategies import make_finding, make_frame

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command-line.md").read_text("utf-8")
RUN = StoredRun([make_frame(0)], [make_finding()], [Action(what="skip", step=0)])


def section(title):
    return re.search(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL).group(1)


def named_in(text):
    """Return every name in backticks."""
    return set(re.findall(r"`([\w.\-/]+)`", text))


@pytest.mark.parametrize("command", entry.COMMANDS, ids=lambda command: command.NAME)
def test_the_options_of_a_command_are_those_of_its_table(command):
    parser = ArgumentParser(add_help=False)
    command.add_arguments(parser)
    options = {o for action in parser._actions for o in action.option_strings}
    assert set(re.findall(r"`(--?[a-z][a-z-]*)", section(command.NAME))) == options


def test_every_exit_code_is_explained():
    codes = set(re.findall(r"\d+", " ".join(re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE))))
    ours = (
        outcome.CLEAN,
        outcome.FOUND,
        outcome.UNUSABLE,
        outcome.FAULT,
        outcome.INTERRUPTED,
        outcome.CUT_SHORT,
    )
    assert codes == {str(code) for code in ours}


@pytest.mark.parametrize("table", export.TABLES)
def test_every_table_of_an_export_is_explained(table):
    assert f"| `{table}` |" in section("export")
    for column in make_table(table, RUN).columns:
        is_number = table in {"layers", "steps"} and column not in {"optimizer_index", "step"}
        assert is_number or f"`{column}`" in PAGE, column


def keys(value):
    """Return all keys, but for those inside what a run wrote about itself."""
    if isinstance(value, dict):
        inner = (keys(item) for key, item in value.items() if key not in {"meta", "numbers"})
        return set(value).union(*inner)
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set()


COMMANDS = {
    "summary": ["run"],
    "tail": ["run", "--once"],
    "replay": ["run"],
    "export": ["run", "-o", "out.csv"],
    "report": ["run"],
    "doctor": [],
    "preflight": ["examples.reference.batch_norm:sigmoid10_norm", "--batch-shape", "8,1,8,8"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_the_json_is_explained(command, stored, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "_plugin", list)
    monkeypatch.setattr(report, "_write", lambda _runs, _target: None)
    stored(RUN)
    assert main([command, *COMMANDS[command], "--json"]) == 0
    out = capsys.readouterr().out
    records = [json.loads(line) for line in out.splitlines()] if command == "tail" else [
        json.loads(out)
    ]  # fmt: skip
    explained = named_in(section("JSON")) | {"schema", "command"}
    assert keys(records) - explained == set()
    assert [record["schema"] for record in records] == ["gradguard.cli/1"] * len(records)
