"""The oldest versions that the wheel accepts work, under both names of Lightning.

torch is the exception: only the build of the tests' environment is run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.conftest import (
    LAST_STEPS,
    Environment,
    Wheel,
    make_environment,
    with_dependencies,
)

OLDEST = ("numpy", "pytorch-lightning", "tensorboard")


@pytest.fixture(scope="module")
def oldest(wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the lower bounds themselves, and whatever else pip finds for them."""
    core = [item for item in wheel.requirements if "extra" not in str(item.marker)]
    shared = with_dependencies(core)
    environment = make_environment(
        tmp_path_factory.mktemp("oldest") / "env",
        [distribution for name, distribution in shared.items() if name not in OLDEST],
    )
    pins = {name: wheel.lower_bound(name) for name in OLDEST}
    pins["lightning"] = pins["pytorch-lightning"]
    environment.pip(
        "install",
        "--quiet",
        "--only-binary=:all:",
        f"lightning-gradguard[lightning] @ {wheel.path.as_uri()}",
        *(f"{name}=={version}" for name, version in pins.items()),
    )
    return environment


def test_the_oldest_versions_go_together(oldest):
    assert "No broken requirements found" in oldest.pip("check")


@pytest.mark.parametrize("root", ["pytorch_lightning", "lightning.pytorch"])
def test_the_oldest_lightning_trains_saves_and_resumes(root, oldest, wheel):
    result = oldest.train(root)
    assert Path(result["package"]).is_relative_to(oldest.folder)
    assert result["lightning"].startswith(wheel.lower_bound("pytorch-lightning"))
    assert result["last_steps"] == LAST_STEPS
    assert result["kinds"] == ["nonfinite"]


def test_the_oldest_tensorboard_starts(oldest, wheel):
    version = oldest.run("-m", "tensorboard.main", "--version_tb").strip()
    assert version.startswith(wheel.lower_bound("tensorboard"))
