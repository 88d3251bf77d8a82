"""Seeds, one thread, and how long Hypothesis looks: ``HYPOTHESIS_PROFILE`` chooses."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

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
