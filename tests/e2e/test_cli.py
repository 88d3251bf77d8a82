"""The command ``gradguard`` on histories that real trainings wrote."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from lightning_gradguard import GradientGuard, GradientMonitor
from lightning_gradguard.cli import main
from lightning_gradguard.findings import headline
from tests.e2e.models import Classifier, TwoOptimizers, random_data, trainer

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "lightning", "pytorch_lightning", "lightning_fabric"}


def sigmoids():
    hidden = [part for _ in range(9) for part in (nn.Linear(6, 6), nn.Sigmoid())]
    return nn.Sequential(*hidden, nn.Linear(6, 3))


def trained(folder, model, callback, steps=60):
    """Train, and return the run's folder."""
    logger = CSVLogger(folder, name="logs")
    fit = trainer(callback, logger=logger, max_steps=steps, max_epochs=-1)
    fit.fit(model, random_data(64, 6))
    return Path(logger.log_dir)


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """A run in which gradients vanish: its folder and its monitor."""
    monitor = GradientMonitor(on_error="raise")
    folder = trained(tmp_path_factory.mktemp("failing"), Classifier(sigmoids(), lr=1e-4), monitor)
    return folder, monitor


def said(capsys, *arguments, code=0):
    capsys.readouterr()
    assert main([str(part) for part in arguments]) == code
    return capsys.readouterr().out


def complaint(capsys, *arguments):
    """Return what is said of arguments that lead nowhere."""
    assert main([str(part) for part in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gradguard: ")
    assert len(err.splitlines()) == 1
    return err


def contents(folder):
    """Return all files beneath a folder, by name and content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_summary_says_what_the_run_said_at_its_end(failing, capsys):
    folder, monitor = failing
    assert monitor.alarms
    theirs = str(monitor.summary()).splitlines()
    ours = said(capsys, "summary", folder).splitlines()
    assert ours[: len(theirs) - 1] == theirs[:-1]  # the cost aside
    assert f"  run     {folder.name}: finished" in ours


@pytest.mark.parametrize("place", [".", "gradguard", "gradguard/history.sqlite"])
def test_a_run_is_found_from_wherever_somebody_points(place, failing, capsys):
    folder, _ = failing
    whole = said(capsys, "summary", folder)
    assert said(capsys, "summary", folder / place).splitlines()[0] == whole.splitlines()[0]
    assert main(["summary", str(folder.parent.parent)]) == 0


def test_the_exit_code_tells_ci(failing, capsys):
    folder, monitor = failing
    worst = max(finding.severity for finding in monitor.findings).name.lower()
    said(capsys, "summary", folder, "--fail-on", worst, code=1)
    said(capsys, "summary", folder, "--fail-on", "never", code=0)


def test_an_export_ends_with_the_last_frame(failing, capsys, tmp_path):
    folder, monitor = failing
    frame = monitor.last_frame
    rows = list(csv.DictReader(io.StringIO(said(capsys, "export", folder))))
    last = [row for row in rows if int(row["step"]) == frame.step]
    assert [row["layer"] for row in last] == list(frame.layers)
    for statistic in ("grad_norm", "grad_abs_max", "param_norm"):
        read = [float(row[statistic]) for row in last]
        np.testing.assert_allclose(read, getattr(frame, statistic), rtol=1e-3)
    target = tmp_path / "run.parquet"
    said(capsys, "export", folder, "-o", target)
    table = parquet.read_table(target).to_pydict()
    assert table["layer"] == [row["layer"] for row in rows]
    read = [np.float32(row["grad_norm"] or "nan") for row in rows]
    np.testing.assert_array_equal(np.array(table["grad_norm"], np.float32), np.array(read))


@pytest.mark.parametrize("table", ["steps", "histograms", "findings"])
def test_every_table_of_a_real_run_has_rows(table, failing, capsys):
    folder, monitor = failing
    rows = list(csv.DictReader(io.StringIO(said(capsys, "export", folder, "--table", table))))
    assert rows
    if table == "findings":
        assert [row["kind"] for row in rows] == [finding.kind for finding in monitor.findings]
    if table == "steps":
        assert float(rows[-1]["loss"]) == pytest.approx(monitor.last_frame.loss, rel=1e-6)


def test_a_replay_with_the_same_settings_says_the_same(failing, capsys):
    folder, monitor = failing
    again = json.loads(said(capsys, "replay", folder, "--json"))
    assert [f["line"] for f in again["findings"]] == [headline(f) for f in monitor.findings]


def test_what_a_guard_did_is_in_the_summary_and_in_the_export(tmp_path, capsys):
    guard = GradientGuard(clip=1e-3, on_error="raise")
    folder = trained(tmp_path, Classifier(sigmoids()), guard, steps=12)
    summary = said(capsys, "summary", folder)
    assert "guard   clipped" in summary
    said(capsys, "export", folder, "--table", "actions")


def test_two_optimizers_are_two(tmp_path, capsys):
    folder = trained(tmp_path, TwoOptimizers(), GradientMonitor(on_error="raise"), steps=20)
    run = json.loads(said(capsys, "summary", folder, "--json"))["run"]
    assert [(o["index"], o["layers"]) for o in run["optimizers"]] == [(0, 1), (1, 1)]
    rows = list(csv.DictReader(io.StringIO(said(capsys, "export", folder))))
    assert {row["optimizer_index"] for row in rows} == {"0", "1"}


def test_looking_changes_no_file(failing, capsys, tmp_path):
    folder, _ = failing
    before = contents(folder)
    for verb, *options in (
        ["summary"],
        ["tail", "--once"],
        ["replay"],
        ["export", "-o", tmp_path / "x.csv"],
        ["report", "-o", tmp_path / "x.html"],
        ["doctor"],
    ):
        main([verb, str(folder), *map(str, options)])
    assert contents(folder) == before


def python(program, **options):
    return subprocess.Popen(  # noqa: S603 - a program of ours
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("verb", ["summary", "tail", "export", "replay", "report"])
def test_no_command_loads_torch_and_the_short_ones_are_quick(verb, failing, tmp_path):
    folder, _ = failing
    options = ["-o", str(tmp_path / "out")] if verb in {"export", "report"} else []
    program = f"""
        import sys, time
        start = time.perf_counter()
        from lightning_gradguard.cli import main
        code = main([{verb!r}, {str(folder)!r}, *{options}])
        print(code, sorted(sys.modules.keys() & {HEAVY}), time.perf_counter() - start)
    """
    with python(program) as child:
        out, err = child.communicate(timeout=120)
    code, modules, seconds = out.splitlines()[-1].split()
    assert (code, modules, child.returncode) == ("0", "[]", 0), err
    # Far above what it takes, since a test may have a busy neighbour.
    assert float(seconds) < (20.0 if verb == "replay" else 5.0)


TRAINING = """
    import sys, time
    from tests.e2e.test_cli import *
    class Slow(Classifier):
        def training_step(self, batch, batch_idx):
            time.sleep({pause})
            return super().training_step(batch, batch_idx)
    trained({folder!r}, Slow(sigmoids(), lr=1e-4), GradientMonitor(), steps={steps})
"""


def until(condition, seconds=60.0):
    """Wait for something to be true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)
    return found


def test_tail_follows_a_run_to_its_end(tmp_path):
    with python(TRAINING.format(folder=str(tmp_path), pause=0.02, steps=150)) as training:
        history = until(lambda: next(tmp_path.rglob("history.sqlite"), None))
        program = "from lightning_gradguard.cli import main; import sys; sys.exit(main())"
        command = [sys.executable, "-c", program, "tail", history, "--interval", "0.1", "--json"]
        with subprocess.Popen(  # noqa: S603 - a program of ours
            command, stdout=subprocess.PIPE, text=True
        ) as tail:
            first = json.loads(tail.stdout.readline())
            was_training = training.poll() is None
            rest = [json.loads(line) for line in tail.stdout]
        training.communicate(timeout=60)
    assert first["event"] == "finding"
    assert was_training
    assert (rest[-1]["event"], rest[-1]["state"]) == ("end", "finished")
    assert (tail.returncode, training.returncode) == (0, 0)


def test_a_killed_run_can_be_looked_at(tmp_path, capsys):
    with python(TRAINING.format(folder=str(tmp_path), pause=0.01, steps=100_000)) as training:
        history = until(lambda: next(tmp_path.rglob("history.sqlite"), None))
        until(lambda: main(["summary", str(history)]) == 0 and steps_of(capsys, history) > 20)
        training.send_signal(signal.SIGKILL)
        training.communicate()
    out = said(capsys, "summary", tmp_path)
    assert "not finished: it still trains, or it was killed" in out
    said(capsys, "replay", tmp_path)
    said(capsys, "export", tmp_path)


def steps_of(capsys, history):
    run = json.loads(said(capsys, "summary", history, "--json"))["run"]
    return sum(optimizer["steps"] for optimizer in run["optimizers"])


# What leads nowhere.


def test_a_folder_that_does_not_exist(tmp_path, capsys):
    assert str(tmp_path / "no") in complaint(capsys, "summary", tmp_path / "no")


def test_a_folder_without_a_history(tmp_path, capsys):
    assert str(tmp_path) in complaint(capsys, "summary", tmp_path)


def test_a_folder_with_several(failing, tmp_path, capsys):
    folder, _ = failing
    for name in ("a", "b"):
        shutil.copytree(folder, tmp_path / name)
    message = complaint(capsys, "summary", tmp_path)
    assert "a" in message
    assert "b" in message


def test_an_empty_file(tmp_path, capsys):
    file = tmp_path / "history.sqlite"
    file.touch()
    assert "empty" in complaint(capsys, "summary", file)


def test_a_file_that_is_not_a_database(tmp_path, capsys):
    file = tmp_path / "history.sqlite"
    file.write_bytes(b"epoch,step,loss\n" * 1000)
    assert str(file) in complaint(capsys, "summary", file)


def test_somebody_elses_database(tmp_path, capsys):
    file = tmp_path / "history.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    database.close()
    assert str(file) in complaint(capsys, "summary", file)


def test_a_file_that_was_cut_off(failing, tmp_path, capsys):
    folder, _ = failing
    whole = (folder / "gradguard" / "history.sqlite").read_bytes()
    file = tmp_path / "history.sqlite"
    file.write_bytes(whole[: len(whole) // 2])
    for verb in ("summary", "replay", "export", "tail"):
        assert str(file) in complaint(capsys, verb, file)


def test_a_file_of_a_newer_version(failing, tmp_path, capsys):
    folder, _ = failing
    file = tmp_path / "history.sqlite"
    shutil.copy(folder / "gradguard" / "history.sqlite", file)
    with sqlite3.connect(file) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version + 1}")
    database.close()
    message = complaint(capsys, "summary", file)
    assert "gradguard/2" in message
    assert "Update lightning-gradguard" in message


def test_a_remote_directory(capsys):
    assert "s3://" in complaint(capsys, "summary", "s3://bucket/logs")


@pytest.mark.parametrize("verb", ["summary", "report", "doctor"])
def test_a_remote_address_is_named_as_one(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = main([verb, "s3://bucket/logs"])
    assert code == (1 if verb == "doctor" else 2)
    said = capsys.readouterr()
    assert "s3://bucket/logs is a remote address" in said.out + said.err


def test_a_run_that_was_not_watched_to_the_end_is_not_called_healthy(tmp_path, capsys):
    monitor = GradientMonitor()
    broken = monitor._make_probe

    def make(pl_module):
        probe = broken(pl_module)
        after = probe.after_update

        def fails(*args, **kwargs):
            if len(seen) == 5:
                msg = "lost"
                raise RuntimeError(msg)
            seen.append(1)
            return after(*args, **kwargs)

        seen = []
        probe.after_update = fails
        return probe

    monitor._make_probe = make
    with pytest.warns(UserWarning, match="stopped watching"):
        folder = trained(tmp_path, Classifier(nn.Linear(6, 3)), monitor, steps=10)
    out = said(capsys, "summary", folder)
    assert "lost" in out
    assert json.loads(said(capsys, "summary", folder, "--json"))["healthy"] is False
