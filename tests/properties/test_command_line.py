"""Whatever is typed after ``gradguard``: done, or a clear message, never a fault of the program."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.cli import main
from lightning_gradguard.history.storage import Entry
from lightning_gradguard.history.writer import Writer
from tests.strategies import make_frame

COMMANDS = ("summary", "report", "tail", "export", "replay", "doctor")
WORDS = (
    *("--json", "--once", "--fail-on", "error", "--to", "csv", "parquet", "--table", "steps"),
    *("--layers", "*", "--statistics", "grad_norm", "--sensitivity", "high", "--ignore", "spike"),
    *("--cooldown-steps", "-1", "--interval", "0", "-o", "--output", "--help", "--", "RUN"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    writer = Writer(folder / "gradguard" / "history.sqlite")
    for step in range(3):
        writer.add(Entry(make_frame(step)))
    writer.close("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield folder


words = st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=6)


@given(st.sampled_from(COMMANDS), words)
def test_any_words_are_understood_or_refused(run, command, words):
    # What names a file to write goes nowhere: there is no such folder.
    arguments = [str(run) if word == "RUN" else word for word in words]
    arguments = [f"/nowhere/{word}" if before in {"-o", "--output"} else word
                 for before, word in zip(["", *arguments], arguments, strict=False)]  # fmt: skip
    if command == "report" and not {"-o", "--output"} & set(arguments):
        arguments += ["-o", "/nowhere/report.html"]
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main([command, str(run), *arguments])
        except SystemExit as end:
            code = end.code
    text = said.buffer.getvalue().decode("utf-8", "replace")
    assert code in {0, 1, 2}, text
    assert "Traceback" not in text
