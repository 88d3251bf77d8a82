"""Memory of the host: that of the machine, or what a container may have of it."""

from __future__ import annotations

import os

import pytest

from lightning_gradguard import host_memory as file

MACHINE = 2**40


@pytest.fixture
def limits(monkeypatch, tmp_path):
    """Stand on a machine of a tebibyte, in a container of which nothing is said yet."""
    pages = {"SC_PHYS_PAGES": MACHINE // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    paths = (tmp_path / "two", tmp_path / "one")
    monkeypatch.setattr(file, "_CONTAINER_LIMITS", paths)
    return paths


def test_without_a_container_it_is_that_of_the_machine(limits) -> None:
    assert file.host_memory() == MACHINE
    assert not any(path.exists() for path in limits)


@pytest.mark.parametrize(
    ("version", "said", "expected"),
    [
        (0, "34359738368\n", 2**35),
        (0, "max\n", MACHINE),
        (1, "34359738368\n", 2**35),
        (1, "9223372036854771712\n", MACHINE),  # no limit, as version 1 says it
    ],
)
def test_a_container_has_no_more_than_it_may(limits, version, said, expected) -> None:
    limits[version].write_text(said)
    assert file.host_memory() == expected


def test_where_the_system_does_not_say_nobody_guesses(monkeypatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert file.host_memory() is None
