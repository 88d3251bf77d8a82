"""The wheel says the right things, holds the right files, and needs only what it declares."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.packaging.conftest import (
    LAST_STEPS,
    ROOT,
    Environment,
    Wheel,
    make_environment,
    with_dependencies,
)

PACKAGE = "lightning_gradguard"


@pytest.fixture(scope="module")
def installed(wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and what it declares: no extra, no tool."""
    core = [item for item in wheel.requirements if "extra" not in str(item.marker)]
    environment = make_environment(
        tmp_path_factory.mktemp("core") / "env", with_dependencies(core).values()
    )
    environment.pip("install", "--no-deps", "--no-index", wheel.path)
    return environment


def test_the_metadata_say_what_the_package_is(wheel):
    assert wheel.metadata["Name"] == "lightning-gradguard"
    assert wheel.metadata["Requires-Python"] == ">=3.10"
    assert wheel.metadata["Summary"]
    assert wheel.metadata["Description-Content-Type"] == "text/markdown"
    assert wheel.metadata["License-Expression"] == "Apache-2.0"
    assert set(wheel.metadata.get_all("Provides-Extra")) == {
        "alerts",
        "bench",
        "check",
        "dev",
        "docs",
        "examples",
        "lightning",
        "models",
        "parquet",
        "rich",
        "test",
    }


def test_the_core_depends_on_four_distributions(wheel):
    core = {item.name for item in wheel.requirements if item.marker is None}
    assert core == {"numpy", "pytorch-lightning", "tensorboard", "torch"}


def test_every_pin_lies_in_the_declared_range(wheel):
    pins = dict(
        line.split(";")[0].strip().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    declared = [item for item in wheel.requirements if item.name != wheel.metadata["Name"]]
    for requirement in declared:
        assert requirement.name in pins, f"{requirement.name} is not pinned"
        assert SpecifierSet(str(requirement.specifier)).contains(pins[requirement.name])


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert f"{PACKAGE}/py.typed" in source
    assert {name for name in wheel.names if ".dist-info/" not in name} == source


def test_the_licence_travels_with_the_wheel(wheel):
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.names)


def test_the_command_is_an_entry_point(wheel):
    assert dict(wheel.entry_points["console_scripts"]) == {
        "gradguard": f"{PACKAGE}.cli:main",
    }


def test_the_tab_is_an_entry_point(wheel):
    points = dict(wheel.entry_points["tensorboard_plugins"])
    assert points == {"gradguard": f"{PACKAGE}.tensorboard_plugin.loader:GradientHealthLoader"}


def test_the_command_runs_and_knows_its_version(installed, wheel):
    version = f"gradguard {wheel.metadata['Version']}"
    script = installed.python.with_name("gradguard")
    assert installed.run(script, "--version").strip() == version
    assert installed.run("-m", PACKAGE, "--version").strip() == version


def test_importing_the_package_loads_neither_torch_nor_lightning(installed):
    heavy = {"torch", "lightning", "pytorch_lightning", "lightning_fabric", "tensorboard"}
    program = f"import sys, {PACKAGE}; print(sorted(sys.modules.keys() & {heavy}))"
    assert installed.run("-c", program).strip() == "[]"


def test_the_installed_version_is_the_wheels(installed, wheel):
    program = "from importlib.metadata import version; print(version('lightning-gradguard'))"
    assert installed.run("-c", program).strip() == wheel.metadata["Version"]


def test_no_declared_dependency_is_missing_or_in_conflict(installed):
    assert "No broken requirements found" in installed.pip("check")


def test_a_training_needs_nothing_but_the_declared_dependencies(installed):
    result = installed.train("pytorch_lightning")
    assert Path(result["package"]).is_relative_to(installed.folder)
    assert result["last_steps"] == LAST_STEPS
    assert result["kinds"] == ["nonfinite"]
    assert result["event_files"] > 0
