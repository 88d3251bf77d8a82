"""``gradguard preflight`` says what `preflight` says, of a model that is named."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from lightning_gradguard import preflight
from lightning_gradguard.cli import main

MODELS = """
import torch
from torch import nn

print("some library says hello")


def deep(activation=nn.ReLU):
    layers = [part for _ in range(12) for part in (nn.Linear(32, 32), activation())]
    return nn.Sequential(*layers, nn.Linear(32, 4))


class Good(nn.Sequential):
    def __init__(self):
        super().__init__(*deep(nn.Tanh))
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)


class Holder:
    model = nn.Sequential(*deep())


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        raise RuntimeError("no data here")


class Loud(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(32, 2)

    def forward(self, x):
        print("forward")
        return self.inner(x)


def batch():
    return torch.randn(16, 32)


pair = (torch.ones(16, 32), torch.zeros(16))
number = 3
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Stand in a folder with a module of models, as a user does."""
    (tmp_path / "models_of_a_user.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "broken_of_a_user.py").write_text("x = 1\n1 / 0\n", encoding="utf-8")
    (tmp_path / "script_of_a_user.py").write_text("raise SystemExit(0)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("models_of_a_user", "broken_of_a_user", "script_of_a_user"):
        sys.modules.pop(name, None)


def run(*arguments):
    return main(["preflight", *arguments])


def test_a_signal_that_shrinks_is_a_finding(capsys):
    assert run("models_of_a_user:deep", "--batch-shape", "64,32") == 1
    out, err = capsys.readouterr()
    assert out.startswith("gradguard preflight: signal shrinks 0.4")
    assert err == "some library says hello\n"


def test_a_signal_that_is_kept_is_none(capsys):
    assert run("models_of_a_user:Good", "--batch", "models_of_a_user:batch") == 0
    assert capsys.readouterr().out.startswith("gradguard preflight: the signal is kept")


def test_the_text_is_that_of_the_function(capsys):
    run("models_of_a_user:deep", "--batch", "models_of_a_user:batch", "--seed", "5")
    printed = capsys.readouterr().out
    torch.manual_seed(5)
    layers = [part for _ in range(12) for part in (nn.Linear(32, 32), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(32, 4))
    assert printed == f"{preflight(model, torch.randn(16, 32), seed=5)}\n"


@pytest.mark.parametrize("name", ["Holder.model", "deep", "Loud"])
def test_json_is_alone_on_standard_output(name, capsys):
    run(f"models_of_a_user:{name}", "--batch", "models_of_a_user:pair", "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["command"]) == ("gradguard.cli/1", "preflight")
    assert said["model"] == f"models_of_a_user:{name}"
    assert said["ending"] == "random"


@pytest.mark.parametrize(
    ("model", "batch", "message"),
    [
        ("models_of_a_user", "batch", "A name must be module:attribute, got 'models_of_a_user'"),
        ("no_such_module:x", "batch", "importing 'no_such_module' raised ModuleNotFoundError"),
        ("models_of_a_user:Deep", "batch", "'models_of_a_user' has no 'Deep'. Look at"),
        ("broken_of_a_user:x", "batch", "ZeroDivisionError: division by zero (broken_of_a_user.py"),
        ("script_of_a_user:x", "batch", "importing 'script_of_a_user' raised SystemExit"),
        (
            "models_of_a_user:Raises",
            "batch",
            "calling models_of_a_user:Raises() raised RuntimeError: no data here",
        ),
        ("models_of_a_user:number", "batch", "`model` must be a torch module, got 3"),
        ("models_of_a_user:deep", "number", "takes the batch, got TypeError"),
        ("models_of_a_user:deep", "nothing", "has no 'nothing'"),
    ],
)
def test_what_cannot_be_run_exits_with_2_and_says_why(model, batch, message, capsys):
    assert run(model, "--batch", f"models_of_a_user:{batch}") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["models_of_a_user:deep"],
        ["models_of_a_user:deep", "--batch-shape", "a,b"],
        ["models_of_a_user:deep", "--batch-shape", "0,32"],
        ["models_of_a_user:deep", "--batch-shape", "1,32", "--batch", "models_of_a_user:pair"],
        ["models_of_a_user:deep", "--batch-shape", "1,32", "--seed", "-1"],
        ["models_of_a_user:deep", "--batch-shape", "1,32", "--seed", "4294967296"],
    ],
)
def test_a_wrong_option_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert "usage: gradguard preflight" in capsys.readouterr().err


def test_its_help_says_that_it_runs_code(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    assert "imports and runs your code" in " ".join(capsys.readouterr().out.lower().split())
