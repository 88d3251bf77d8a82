"""Lightning comments on short CPU runs, which the tests do without; a server that takes alerts."""

from __future__ import annotations

import logging

import pytest

from tests.alert_servers import serving


@pytest.fixture(autouse=True)
def _quiet_lightning(caplog):
    caplog.set_level(logging.ERROR, logger="lightning.pytorch")


@pytest.fixture
def server(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("GRADGUARD_WEBHOOK_URL", server.address)
        yield server
