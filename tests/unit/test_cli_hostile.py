"""A history is anybody's file: its names and texts must not steer a terminal."""

from __future__ import annotations

import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from lightning_gradguard.audit import Action
from lightning_gradguard.cli import export, main
from lightning_gradguard.cli.csv_file import cell
from lightning_gradguard.history.writer import Writer
from lightning_gradguard.plain_text import printable
from tests.histories import StoredRun
from tests.strategies import make_finding, make_frame

NAMES = (
    "<img src=x onerror=alert(1)>",
    "a\x1b]0;title\x07b\x1b[2J",
    "=cmd|' /C calc'!A0",
    "one\ngradguard: healthy: nothing to report",
    "\u202egnp.exe",
    "\ud800",
    "\x9b31m",
    "x" * 100_000,
)
FRAMES = [make_frame(step, [1.0] * len(NAMES), layers=NAMES) for step in range(3)]


def hostile_run():
    findings = [
        make_finding(name, step=2, layers=(name,), message=name, advice=name, unit=name, rule=name)
        for name in NAMES
    ]
    findings = [
        type(f)(**{**vars(f), "episode_id": number}) for number, f in enumerate(findings, start=1)
    ]
    actions = [Action(what=name, step=1, why=name, numbers={name: 1.0}) for name in NAMES]
    run = StoredRun(FRAMES, findings, actions, finished=NAMES[1], model=NAMES[1])
    run.name = NAMES[1]
    return run


def is_harmless(text):
    return all(line.isprintable() for line in text.split("\n"))


COMMANDS = [
    ["summary"],
    ["summary", "--json"],
    ["tail", "--once"],
    ["tail", "--once", "--json"],
    ["replay"],
    ["replay", "--json"],
    *(["export", "--table", table] for table in export.TABLES),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_that_is_printed_can_steer_a_terminal(command, stored, capsys):
    verb, *options = command
    stored(hostile_run())
    assert main([verb, "run", *options]) == 0
    out, err = capsys.readouterr()
    assert is_harmless(out)
    assert is_harmless(err)


@pytest.mark.parametrize("table", export.TABLES)
def test_parquet_keeps_names_but_for_what_utf8_cannot_hold(table, stored, tmp_path):
    target = tmp_path / "run.parquet"
    stored(hostile_run())
    assert main(["export", "run", "--table", table, "-o", str(target)]) == 0
    columns = parquet.read_table(target).to_pydict()
    if table == "layers":
        assert columns["layer"][:8] == [name.replace("\ud800", r"\ud800") for name in NAMES]


def test_a_name_cannot_begin_a_line_of_its_own(stored, capsys):
    stored(hostile_run())
    main(["summary", "run"])
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("gradguard: healthy") for line in lines)
    assert max(map(len, lines)) < 2_100


@given(st.text())
@example("\x1b[31m")
@example("\u2066")
@example("\udcff")
def test_printable_text_is_kept_and_all_other_becomes_printable(text):
    assert printable(text).isprintable()
    assert not text.isprintable() or printable(text) == text
    printable(text).encode("utf-8")


@given(st.text())
@example("=1+1")
@example("\n=1")
def test_no_cell_begins_a_formula(text):
    assert not cell(text).lstrip().startswith(tuple("=+-@"))
    assert cell(text).isprintable()


@pytest.mark.parametrize(("closed", "code"), [("stdout", 0), ("stderr", 2)])
def test_a_stream_that_is_closed_changes_no_exit_code(closed, code, tmp_path, monkeypatch):
    writer = Writer(tmp_path / "gradguard" / "history.sqlite")
    writer.close("finished")
    monkeypatch.setattr(sys, closed, None)
    where = tmp_path if code == 0 else tmp_path / "nothing"
    assert main(["summary", str(where)]) == code
    assert main(["summary", str(where), "--json"]) == code
