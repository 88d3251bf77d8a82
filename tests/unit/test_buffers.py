"""Buffers of a step that is left out are as before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.actions import buffers as module_under_test
from lightning_gradguard.actions.buffers import Buffers

HOST, DEVICE = True, torch.ones((), dtype=torch.bool)
NOT_ON_DEVICE = ~DEVICE
either_flag = pytest.mark.parametrize("flag", [HOST, DEVICE], ids=["host", "device"])


class Holder(nn.Module):
    def __init__(self, *values: float) -> None:
        super().__init__()
        self.register_buffer("kept", torch.tensor(values))
        self.register_buffer("nothing", None)


def all_of(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def assert_as(model, before):
    torch.testing.assert_close(all_of(model), before, rtol=0.0, atol=0.0, equal_nan=True)


@either_flag
def test_running_statistics_survive_a_batch_of_nan(flag) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.InstanceNorm1d(4)))
    buffers = Buffers(model)
    for _ in range(6):
        buffers.remember()
        model[:2](torch.randn(8, 3))
        buffers.restore_(flag=False)
    before = all_of(model)
    buffers.remember()
    model[:2](torch.full((8, 3), torch.nan))
    assert not model[1].running_mean.isfinite().any()
    assert buffers.restore_(flag) == []
    assert_as(model, before)
    assert model[1].num_batches_tracked.item() == 6


@pytest.mark.parametrize("flag", [False, NOT_ON_DEVICE], ids=["host", "device"])
def test_a_step_that_is_not_left_out_keeps_what_it_changed(flag) -> None:
    model = Holder(1.0, 2.0)
    buffers = Buffers(model)
    buffers.remember()
    model.kept += 5.0
    assert buffers.restore_(flag) == []
    assert model.kept.tolist() == [6.0, 7.0]


@either_flag
def test_a_buffer_that_was_exchanged_is_put_back_without_writing_to_the_other(flag) -> None:
    model, batch = Holder(1.0, 2.0), torch.tensor([8.0, 9.0])
    buffers = Buffers(model)
    buffers.remember()
    model.kept = batch
    assert buffers.restore_(flag) == []
    assert model.kept.tolist() == [1.0, 2.0]
    assert batch.tolist() == [8.0, 9.0]


@either_flag
@pytest.mark.parametrize(
    "other",
    [torch.tensor(7.0).expand(2), torch.ones(3), torch.ones(0), None],
    ids=["expanded", "longer", "empty", "none"],
)
def test_whatever_took_its_place_a_buffer_comes_back(flag, other) -> None:
    model = Holder(1.0, 2.0)
    buffers = Buffers(model)
    buffers.remember()
    model.kept = other
    buffers.restore_(flag)
    assert model.kept.tolist() == [1.0, 2.0]


@either_flag
def test_a_buffer_that_repeats_its_memory_is_put_back(flag) -> None:
    model = nn.Module()
    model.register_buffer("kept", torch.ones(1).expand(4))
    buffers = Buffers(model)
    buffers.remember()
    model.kept[:1] += 1.0
    assert buffers.restore_(flag) == []
    assert model.kept.tolist() == [1.0] * 4


@either_flag
def test_a_buffer_written_to_and_then_exchanged_comes_back_as_it_was(flag) -> None:
    model = Holder(1.0, 2.0)
    buffers = Buffers(model)
    buffers.remember()
    model.kept += 1.0
    model.kept = torch.zeros(2)
    buffers.restore_(flag)
    assert model.kept.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("other", [torch.ones(3), None], ids=["longer", "none"])
def test_what_took_its_place_stays_if_the_step_counts(other) -> None:
    model = Holder(1.0, 2.0)
    buffers = Buffers(model)
    buffers.remember()
    model.kept = other
    buffers.restore_(NOT_ON_DEVICE)
    assert model.kept is other


@either_flag
def test_a_large_buffer_is_not_copied_but_named_if_it_changed(flag, monkeypatch) -> None:
    monkeypatch.setattr(module_under_test, "_MOST_KEPT", 2)
    model = nn.ModuleDict({"large": Holder(1.0, 2.0, 3.0), "small": Holder(1.0, 2.0)})
    buffers = Buffers(model)
    buffers.remember()
    assert buffers.restore_(flag) == []
    model["large"].kept += 1.0
    model["small"].kept += 1.0
    assert buffers.restore_(flag) == ["large.kept"]
    assert model["small"].kept.tolist() == [1.0, 2.0]
    assert model["large"].kept.tolist() == [2.0, 3.0, 4.0]


def test_a_buffer_that_changes_only_later_is_named_once_and_then_kept() -> None:
    model = Holder(1.0)
    buffers = Buffers(model)
    for _ in range(4):
        buffers.remember()
    model.kept += 1.0
    assert buffers.restore_(HOST) == ["kept"]
    buffers.remember()
    model.kept += 1.0
    assert buffers.restore_(HOST) == []
    assert model.kept.tolist() == [2.0]


def test_in_the_first_steps_everything_is_kept() -> None:
    model = Holder(1.0)
    buffers = Buffers(model)
    for _ in range(3):
        buffers.remember()
    model.kept += 1.0
    assert buffers.restore_(HOST) == []
    assert model.kept.tolist() == [1.0]


def test_what_was_only_put_back_does_not_count_as_changing() -> None:
    model = Holder(1.0)
    buffers = Buffers(model)
    for _ in range(4):
        buffers.remember()
        buffers.restore_(NOT_ON_DEVICE)
    buffers.remember()
    assert buffers._kept["kept"].copy is None


def test_statistics_of_a_module_in_evaluation_are_left_to_their_version() -> None:
    model = nn.BatchNorm1d(1).eval()
    buffers = Buffers(model)
    for _ in range(5):
        buffers.remember()
    assert all(kept.copy is None for kept in buffers._kept.values())


def test_a_buffer_that_grew_between_steps_is_kept_in_its_new_form() -> None:
    model = Holder(1.0)
    buffers = Buffers(model)
    buffers.remember()
    model.kept = torch.tensor([1.0, 2.0], dtype=torch.float64)
    buffers.remember()
    model.kept += 1.0
    buffers.restore_(HOST)
    assert model.kept.tolist() == [1.0, 2.0]
    assert model.kept.dtype == torch.float64


def test_buffers_without_a_shape_yet_are_passed_over() -> None:
    model = nn.Sequential(nn.LazyBatchNorm1d())
    buffers = Buffers(model)
    buffers.remember()
    model(torch.ones(2, 3))
    assert buffers.restore_(HOST) == []


def test_a_model_without_buffers_is_no_trouble() -> None:
    buffers = Buffers(nn.Linear(1, 1))
    buffers.remember()
    assert buffers.restore_(HOST) == []
