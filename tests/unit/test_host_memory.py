"""Memory of the host: that of the machine, or what a container may have of it."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from lightning_gradguard import host_memory as file
from lightning_gradguard import trainers

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


def training(devices=1, others=()):
    """Return a trainer of a process, and what other ranks put into a reduction."""

    def reduce(number: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "max"
        return torch.stack([number, *map(torch.tensor, map(float, others))]).max()

    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    return SimpleNamespace(num_devices=devices, world_size=1 + len(others), strategy=strategy)


@pytest.mark.usefixtures("limits")
def test_processes_of_one_machine_share_a_quarter_of_it() -> None:
    assert trainers.share_of_host_memory(training()) == MACHINE // 4
    assert trainers.share_of_host_memory(training(devices=8)) == MACHINE // 32


@pytest.mark.usefixtures("limits")
def test_the_rank_with_the_least_memory_decides_for_all() -> None:
    """Else one rank would go back to a state that another has no more."""
    assert trainers.share_of_host_memory(training(others=[-(2**30), -(2**40)])) == 2**30


@pytest.mark.parametrize("others", [(), (-(2**62),)])
def test_where_no_system_says_there_is_no_limit(others, monkeypatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert trainers.share_of_host_memory(training(others=others)) is None
