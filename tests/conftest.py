"""Seeds, one thread, and how long Hypothesis looks: ``HYPOTHESIS_PROFILE`` chooses."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import settings

from lightning_gradguard import devices
from lightning_gradguard.errors import GradGuardError

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("slow", max_examples=5000, deadline=None)
# Where nobody looks on, the same examples each time: a new one is found at a desk.
default = "ci" if os.environ.get("CI") else "dev"
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", default))

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["host", "device"])
def backend(request, monkeypatch) -> str:
    """Measure as on the CPU, and then as on a device: both can do it with tensors on the CPU."""
    if request.param == "device":
        monkeypatch.setattr(devices, "is_host", lambda _device: False)
    return request.param


@pytest.fixture
def stored(monkeypatch):
    """Let commands find a run, or meet an error, wherever they look for a history."""

    def store(found: object) -> None:
        def load_run(path: object, **_: object) -> object:
            here = found[str(path)] if isinstance(found, dict) else found
            if isinstance(here, BaseException):
                raise here
            return here

        reader = SimpleNamespace(
            HistoryError=GradGuardError, load_run=load_run, find_histories=lambda _folder: []
        )
        monkeypatch.setitem(sys.modules, "lightning_gradguard.history", reader)

    return store
