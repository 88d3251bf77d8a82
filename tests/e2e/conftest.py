"""Lightning comments on short CPU runs; the tests do without."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _quiet_lightning(caplog):
    caplog.set_level(logging.ERROR, logger="lightning.pytorch")
