"""The command line as a whole: options, exit codes, speed, and nothing heavy."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from typing import get_args

import pytest

import lightning_gradguard
from lightning_gradguard.cli import entry, export, main, replay
from lightning_gradguard.cli.outcome import FAIL_ON
from lightning_gradguard.cli.tables import TABLES
from lightning_gradguard.detectors.defaults import SENSITIVITIES
from lightning_gradguard.errors import GradGuardError
from lightning_gradguard.findings import Severity
from tests.histories import StoredRun
from tests.strategies import make_finding, make_frame

NAMES = [command.NAME for command in entry.COMMANDS]
HEAVY = {"torch", "lightning", "pytorch_lightning", "lightning_fabric", "tensorboard"}


def python(program, **environment):
    done = subprocess.run(  # noqa: S603 - a program of these tests
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["", *NAMES])
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    assert "usage: gradguard" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"gradguard {lightning_gradguard.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["look"], ["summary"], ["summary", ".", "--fail-on", "maybe"], ["replay"], ["report"]],
)
def test_a_wrong_option_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: gradguard" in capsys.readouterr().err


def test_no_command_loads_anything_heavy_before_it_runs():
    program = (
        f"import sys, lightning_gradguard.cli; print(sys.modules.keys() & {HEAVY | {'numpy'}})"
    )
    assert python(program).strip() == "set()"


def test_the_command_starts_in_a_moment():
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python("import lightning_gradguard.cli as cli; cli.entry.make_parser()")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds()  # so that byte code is there
    # It takes about 0.15 s. CPU time, and the best of three, do not measure the neighbours.
    assert min(seconds() for _ in range(3)) < 0.4


def test_it_runs_as_a_module_under_its_own_name():
    command = [sys.executable, "-m", "lightning_gradguard", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.startswith("usage: gradguard ")


def test_choices_that_are_spelled_out_are_those_of_the_modules():
    assert export.TABLES == TABLES
    assert replay.SENSITIVITIES == SENSITIVITIES
    assert set(FAIL_ON) == {"never", *(severity.name.lower() for severity in Severity)}
    assert get_args(lightning_gradguard.detectors.Sensitivity) == replay.SENSITIVITIES


class UnreadableError(GradGuardError):
    """Stands for whatever is wrong with a history."""


@pytest.mark.parametrize("name", ["summary", "report", "tail", "export", "replay"])
@pytest.mark.parametrize(
    "error", [UnreadableError("x: format gradguard/9"), PermissionError(13, "no")]
)
def test_what_cannot_be_read_exits_with_2_and_says_why(name, error, stored, capsys):
    stored(error)
    assert main([name, "run"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"gradguard: {error}\n")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["summary", "tail", "replay"])
def test_a_fault_of_the_program_is_not_taken_for_a_finding(name, stored, capsys):
    stored(ZeroDivisionError("ours"))
    assert main([name, "run"]) == 3
    assert "ZeroDivisionError: ours" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["summary", "tail"])
@pytest.mark.parametrize(
    ("fail_on", "code"),
    [("never", 0), ("critical", 0), ("error", 1), ("warning", 1), ("info", 1)],
)
def test_fail_on_decides_the_exit_code(name, fail_on, code, stored):
    resolved = make_finding(step=9, state="resolved", severity=Severity.ERROR)
    stored(StoredRun([make_frame()], [make_finding(severity=Severity.ERROR), resolved]))
    assert main([name, "run", "--fail-on", fail_on]) == code


def test_the_keyboard_ends_a_command_as_shells_expect(stored):
    stored(KeyboardInterrupt())
    assert main(["summary", "run"]) == 130


def test_a_reader_that_has_gone_is_no_fault():
    program = (
        "from lightning_gradguard.cli import main, summary, terminal\n"
        "summary.run = lambda _: [terminal.say('x' * 99) for _ in range(9999)]\n"
        "raise SystemExit(main(['summary', 'run']))"
    )
    with subprocess.Popen(  # noqa: S603 - the program above
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout.read(1) == b"x"
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


def test_output_survives_a_terminal_that_lacks_the_letters(tmp_path):
    program = "from lightning_gradguard.cli.terminal import say; say('depth ▁▂ …')"
    assert python(program, PYTHONIOENCODING="ascii").strip() == "depth ?? ?"


def test_json_is_ascii_and_has_no_nan(stored, capsys):
    finding = make_finding(layers=("\x1b[2J€",), value=float("nan"), limit=float("inf"))
    stored(StoredRun([make_frame()], [finding]))
    assert main(["summary", "run", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    (said,) = json.loads(out)["findings"]
    assert (said["layers"], said["value"], said["limit"]) == (["\x1b[2J€"], None, None)
