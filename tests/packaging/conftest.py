"""The wheel as users get it, and fresh environments to put it in.

An environment here sees only what the test names: distributions are lent to it from the
environment that runs the tests, by links, so that a gigabyte need not be installed again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from configparser import ConfigParser
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SMOKE = Path(__file__).with_name("smoke_training.py")

# What the smoke training must report: two epochs of eight steps, and a third after resuming.
LAST_STEPS = [15, 23]


@dataclass(frozen=True)
class Wheel:
    """A built wheel and what it says about itself."""

    path: Path
    names: frozenset[str]
    metadata: Message
    entry_points: ConfigParser

    @property
    def requirements(self) -> list[Requirement]:
        """Everything the wheel depends on, extras included."""
        return [Requirement(line) for line in self.metadata.get_all("Requires-Dist", [])]

    def lower_bound(self, name: str) -> str:
        """Return the oldest version of ``name`` that the package accepts."""
        bounds = [
            specifier.version
            for requirement in self.requirements
            if requirement.name == name and requirement.marker is None
            for specifier in requirement.specifier
            if specifier.operator == ">="
        ]
        assert len(bounds) == 1, f"{name} must have one lower bound, has {bounds}"
        return bounds[0]


@dataclass(frozen=True)
class Environment:
    """A virtual environment of the test's own."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *arguments: str | Path) -> str:
        """Run its Python away from the source tree and return what it prints."""
        return _run([self.python, *arguments], cwd=self.folder)

    def pip(self, *arguments: str | Path) -> str:
        """Run the pip of the tests' environment on this one."""
        return _run([sys.executable, "-m", "pip", "--python", self.python, *arguments])

    def train(self, lightning_root: str) -> dict[str, Any]:
        """Train a tiny model with ``GradientMonitor`` and return what came of it."""
        last_line = self.run(SMOKE, lightning_root).strip().splitlines()[-1]
        result: dict[str, Any] = json.loads(last_line)
        return result


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """Build the source archive and from it the wheel, away from what lies in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        ROOT / "lightning_gradguard",
        source / "lightning_gradguard",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    # What must not get in is offered, too.
    for name in ("tests", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source])
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = frozenset(archive.namelist())
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
        entry_points = ConfigParser()
        entry_points.read_string(archive.read(f"{info}/entry_points.txt").decode())
    return Wheel(path, names, metadata, entry_points)


def make_environment(folder: Path, lent: Iterable[Distribution]) -> Environment:
    """Make an empty environment that can import the ``lent`` distributions, and only those."""
    _run([sys.executable, "-m", "venv", "--without-pip", folder])
    # Beside the environment, not in it: pip never removes what lies outside.
    links = folder.with_name(f"{folder.name}-lent")
    links.mkdir()
    for distribution in lent:
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            link = links / name
            if not link.exists():
                link.symlink_to(str(distribution.locate_file(name)))
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "lent.pth").write_text(f"{links}\n")
    return Environment(folder)


def with_dependencies(requirements: Iterable[Requirement]) -> dict[str, Distribution]:
    """Return the distributions, here, that ``requirements`` bring along, by name."""
    installed = {canonicalize_name(item.name): item for item in distributions()}
    found: dict[str, Distribution] = {}
    pending = [(requirement, "") for requirement in requirements]
    seen = set()
    while pending:
        requirement, extra = pending.pop()
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if not applies or (name, *sorted(requirement.extras), extra) in seen:
            continue
        seen.add((name, *sorted(requirement.extras), extra))
        found[name] = installed[name]
        pending.extend(
            (Requirement(line), of)
            for line in installed[name].requires or ()
            for of in ("", *requirement.extras)
        )
    return found


def _run(command: list[str | Path], cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | {"PYTHONNOUSERSITE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
