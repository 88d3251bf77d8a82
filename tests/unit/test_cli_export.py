"""``gradguard export`` gives the numbers back as they are, and a file whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pyarrow import parquet

from lightning_gradguard import schema
from lightning_gradguard.audit import Action
from lightning_gradguard.cli import main, tables
from lightning_gradguard.cli.csv_file import write_csv
from lightning_gradguard.cli.tables import Table
from tests.histories import SCALARS, STATISTICS, StoredRun
from tests.strategies import make_finding, make_frame

BROKEN = (1e-30, math.nan, math.inf)
FRAMES = [
    make_frame(0, (0.1, 2.0, 3.0), loss=1.5),
    make_frame(7, BROKEN, loss=math.nan),
    make_frame(2, (1.0, 1.0), optimizer_index=1, layers=("d0", "d1")),
]
RUN = StoredRun(FRAMES)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def number(cell):
    return float(cell) if cell else math.nan


def exported(capsys, *options):
    assert main(["export", "run", *options]) == 0
    return rows(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def _run(stored):
    stored(RUN)


def test_every_step_and_layer_is_a_row_with_all_statistics(capsys):
    found = exported(capsys)
    assert list(found[0]) == ["optimizer_index", "step", "layer", *STATISTICS]
    assert [(r["optimizer_index"], r["step"], r["layer"]) for r in found] == [
        *(("0", step, layer) for step in "07" for layer in ("l0", "l1", "l2")),
        ("1", "2", "d0"),
        ("1", "2", "d1"),
    ]


@pytest.mark.parametrize("statistic", STATISTICS)
def test_reading_a_number_gives_the_same_number(statistic, capsys):
    read = [np.float32(number(row[statistic])) for row in exported(capsys)]
    kept = np.concatenate([RUN.statistic(statistic, index).ravel() for index in (0, 1)])
    np.testing.assert_array_equal(np.array(read, dtype=np.float32), kept)


def test_what_was_not_measured_is_empty_and_infinity_is_not(capsys):
    found = exported(capsys, "--statistics", "grad_norm")
    assert [row["grad_norm"] for row in found[3:6]] == ["1e-30", "", "inf"]


def test_numbers_are_written_with_as_few_digits_as_they_need(capsys):
    assert exported(capsys)[0]["grad_norm"] == "0.1"


def test_steps_have_the_scalars(capsys):
    found = exported(capsys, "--table", "steps")
    assert list(found[0]) == ["optimizer_index", "step", *SCALARS]
    assert [row["loss"] for row in found] == ["1.5", "", "1.0"]


def test_globs_choose_layers_and_names_choose_statistics(capsys):
    options = ["--layers", "d*", "--layers", "l2", "--statistics", "grad_norm"]
    found = exported(capsys, *options)
    assert [row["layer"] for row in found] == ["l2", "l2", "d0", "d1"]
    assert list(found[0]) == ["optimizer_index", "step", "layer", "grad_norm"]


def test_blocks_join_without_a_seam(capsys, monkeypatch):
    whole = exported(capsys)
    monkeypatch.setattr(tables, "_ROWS_PER_BLOCK", 4)
    assert exported(capsys) == whole


def test_histograms_name_what_they_count(stored, capsys):
    counts = np.zeros((1, schema.HISTOGRAM_BINS))
    octave = schema.HISTOGRAM_FIRST - schema.HISTOGRAM_LOW - 7  # 2**-7 up to 2**-6
    counts[0, [0, octave, -1]] = 5.0, 2.5, 1.0
    stored(StoredRun([make_frame(3, (1.0,), log2_histogram=counts)]))
    found = exported(capsys, "--table", "histograms")
    assert [(row["step"], row["magnitude"], row["count"]) for row in found] == [
        ("3", "zero", "5.0"),
        ("3", "2^-7", "2.5"),
        ("3", "nonfinite", "1.0"),
    ]


def test_findings_and_actions_are_tables_too(stored, capsys):
    finding = make_finding(step=4, layers=("a", 'b"c'), value=2.5)
    action = Action(what="skip", step=5, why="loss is NaN", numbers={"norm": 4.0})
    stored(StoredRun(FRAMES, [finding], [action]))
    (said,) = exported(capsys, "--table", "findings")
    assert (said["step"], said["severity"], said["value"], said["rank"]) == (
        "4",
        "error",
        "2.5",
        "",
    )
    assert json.loads(said["layers"]) == ["a", 'b"c']
    (done,) = exported(capsys, "--table", "actions")
    assert (done["what"], done["dry_run"]) == ("skip", "false")
    assert json.loads(done["numbers"]) == {"norm": 4.0}


@pytest.mark.parametrize("table", ["layers", "steps", "histograms", "findings", "actions"])
def test_a_run_with_nothing_in_it_gives_a_header(table, stored, capsys):
    stored(StoredRun())
    assert main(["export", "run", "--table", table]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_file_holds_what_standard_output_would(tmp_path, capsys):
    main(["export", "run"])
    printed = capsys.readouterr().out
    target = tmp_path / "run.csv"
    assert main(["export", "run", "-o", str(target)]) == 0
    assert target.read_text(encoding="utf-8") == printed
    assert capsys.readouterr().out == f"{target}: 8 rows of the table layers\n"


def test_json_says_what_was_written(tmp_path, capsys):
    target = tmp_path / "run.csv"
    main(["export", "run", "-o", str(target), "--table", "steps", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (said["file"], said["format"], said["table"]) == (str(target), "csv", "steps")
    assert (said["rows"], said["columns"]) == (3, ["optimizer_index", "step", *SCALARS])


@pytest.mark.parametrize("name", ["run.parquet", "run.PQ"])
def test_parquet_holds_the_same_numbers_and_names(name, tmp_path):
    target = tmp_path / name
    assert main(["export", "run", "-o", str(target)]) == 0
    table = parquet.read_table(target).to_pydict()
    assert table["layer"] == ["l0", "l1", "l2"] * 2 + ["d0", "d1"]
    assert table["step"] == [0, 0, 0, 7, 7, 7, 2, 2]
    kept = np.concatenate([RUN.statistic("grad_norm", index).ravel() for index in (0, 1)])
    np.testing.assert_array_equal(np.array(table["grad_norm"], dtype=np.float32), kept)


@pytest.mark.parametrize("table", ["steps", "histograms", "findings", "actions"])
def test_every_table_can_be_parquet(table, tmp_path, stored):
    stored(StoredRun(FRAMES, [make_finding()], [Action(what="skip", step=5)]))
    target = tmp_path / "out"
    options = ["--to", "parquet", "--table", table]
    assert main(["export", "run", "-o", str(target), *options]) == 0
    expected = 0 if table == "histograms" else 3 if table == "steps" else 1
    assert parquet.read_table(target).num_rows == expected


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["export", "run", "-o", str(tmp_path / "run.parquet")]) == 2
    assert "pip install 'lightning-gradguard[parquet]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "parquet"], "Standard output holds CSV only. Name a file: -o FILE."),
        (["--json"], "Standard output holds CSV only. Name a file: -o FILE."),
        (["--layers", "x*"], "No layer matches 'x*'. The first are 'l0', 'l1', 'l2'."),
        (
            ["--statistics", "norm"],
            f"There is no statistic 'norm' in this history. There are: {', '.join(STATISTICS)}.",
        ),
        (
            ["--table", "steps", "--layers", "l0"],
            "`--layers` chooses rows of the tables layers and histograms, not of steps.",
        ),
        (
            ["--table", "findings", "--statistics", "loss"],
            "`--statistics` chooses columns of the tables layers and steps, not of findings.",
        ),
    ],
)
def test_what_cannot_be_done_is_explained(options, message, capsys):
    assert main(["export", "run", *options]) == 2
    assert capsys.readouterr().err == f"gradguard: {message}\n"


def test_a_failing_export_leaves_the_old_file_and_no_new_one(tmp_path, stored):
    class Torn(StoredRun):
        def statistic(self, name, optimizer_index=0):
            raise OSError(5, "the disk is gone")

    target = tmp_path / "run.csv"
    target.write_text("old")
    stored(Torn(FRAMES))
    assert main(["export", "run", "-o", str(target)]) == 2
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("run.csv", "old")]


@pytest.mark.parametrize(
    "name", ["history.sqlite", "history.sqlite-wal", "../gradguard/history.sqlite"]
)
@pytest.mark.parametrize("command", ["export", "report"])
def test_a_history_is_never_written_over(command, name, tmp_path, stored, capsys):
    folder = tmp_path / "gradguard"
    folder.mkdir()
    stored(StoredRun(FRAMES, path=folder / "history.sqlite"))
    assert main([command, "run", "-o", str(folder / name)]) == 2
    assert "belongs to the history of a run" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", ["export", "report"])
def test_a_folder_that_is_not_there_is_named(command, tmp_path, capsys):
    assert main([command, "run", "-o", str(tmp_path / "no" / "x.csv")]) == 2
    assert f"There is no folder {tmp_path / 'no'}. Make it first." in capsys.readouterr().err
    assert main([command, "run", "-o", str(tmp_path)]) == 2
    assert "is a folder. Name a file in it" in capsys.readouterr().err


def test_a_block_of_text_that_looks_like_orders_is_disarmed():
    texts = ["=1+1", "+1", "-1", "@x", " =1", "\t=1", "a\x1b[2J\nb", "plain"]
    out = io.StringIO()
    assert write_csv(Table({"layer": "text"}, iter([{"layer": texts}])), out) == len(texts)
    cells = [row["layer"] for row in rows(out.getvalue())]
    assert cells == [
        "'=1+1", "'+1", "'-1", "'@x", "' =1", r"'\t=1", r"a\x1b[2J\nb", "plain",
    ]  # fmt: skip


def test_a_pipe_is_written_to_and_not_replaced(tmp_path, capsys):
    main(["export", "run"])
    printed = capsys.readouterr().out
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(pipe.read_text)
        assert main(["export", "run", "-o", str(pipe)]) == 0
        assert reader.result() == printed
    assert pipe.is_fifo()
