"""Who wrote to the gradients between the look and the update."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradguard.assemble import StepContext
from lightning_gradguard.columns import Columns
from lightning_gradguard.scope import Scope
from lightning_gradguard.snapshot import Snapshot, measure_update, take_snapshot

pytestmark = pytest.mark.usefixtures("backend")

CONTEXT = StepContext(step=0)


def model() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 100), nn.Linear(100, 99), nn.Linear(99, 3))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


def taken(model: nn.Module, **options) -> Snapshot:
    tensors = Scope.of(model).tensors
    columns = Columns.of(tuple(dict.fromkeys(t.layer for t in tensors)), tensors)
    gradients = [parameter.grad for parameter in columns.parameters]
    return take_snapshot(columns, gradients, CONTEXT, **options)


def squares(model: nn.Module) -> float:
    return sum(parameter.grad.double().square().sum().item() for parameter in model.parameters())


def entries(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


WRITERS = {
    "in place": lambda p: p.grad.mul_(0.5),
    "a new tensor": lambda p: setattr(p, "grad", p.grad * 0.5),
    "new data": lambda p: setattr(p.grad, "data", p.grad.data * 0.5),
}


@pytest.mark.parametrize("watch_clipping", [True, False])
@pytest.mark.parametrize("writer", WRITERS)
def test_whoever_writes_to_gradients_is_noticed(writer, watch_clipping) -> None:
    network = model()
    step = taken(network, watch_clipping=watch_clipping)
    for parameter in network.parameters():
        WRITERS[writer](parameter)
    sums = measure_update(step)
    assert step.touched or writer == "new data"
    if writer == "new data" and not watch_clipping:
        return  # nobody can know; the next look finds it
    assert sums["squares_at_update"].sum() == pytest.approx(squares(network), rel=1e-6)
    if watch_clipping:
        assert sums["clipped"].sum() == pytest.approx(entries(network))
    else:
        assert "clipped" not in sums


def test_one_entry_of_a_large_tensor_is_enough() -> None:
    network = model()
    step = taken(network, watch_clipping=False)
    network[1].weight.grad[50, 50] = 0.0
    sums = measure_update(step)
    assert step.touched
    assert sums["squares_at_update"].sum() == pytest.approx(squares(network), rel=1e-6)


@pytest.mark.parametrize("watch_clipping", [True, False])
def test_where_nobody_writes_nothing_is_clipped(watch_clipping) -> None:
    network = model()
    step = taken(network, watch_clipping=watch_clipping)
    sums = measure_update(step)
    assert not step.touched
    assert float(sums["clipped"].sum()) == 0.0
    assert sums["squares_at_update"].sum() == pytest.approx(squares(network), rel=1e-6)


def test_gradients_that_are_gone_leave_the_norm_unknown() -> None:
    network = model()
    step = taken(network)
    network[0].weight.grad = None
    assert set(measure_update(step)) == {"update_squares"}


FUSED = [
    kind
    for kind in vars(torch.optim).values()
    if inspect.isclass(kind) and "fused" in inspect.signature(kind).parameters
]


@pytest.mark.parametrize("kind", FUSED)
def test_a_fused_optimizer_is_not_taken_for_one_who_clips(kind) -> None:
    network = model()
    optimizer = kind(network.parameters(), lr=0.1, fused=True)
    before = squares(network)
    for _ in range(3):
        step = taken(network, watch_clipping=False)
        optimizer.step()
        sums = measure_update(step)
        assert not step.touched
        assert float(sums["clipped"].sum()) == 0.0
        assert sums["squares_at_update"].sum() == pytest.approx(before, rel=1e-6)
        assert float(sums["update_squares"].sum()) > 0.0


def test_a_scale_is_divided_out_of_everything() -> None:
    network = model()
    plain = taken(network, histogram=True)
    for parameter in network.parameters():
        parameter.grad.mul_(1024.0)
    scaled = taken(network, histogram=True, scale=torch.tensor(1024.0))
    for name, row in plain.sums.items():
        np.testing.assert_allclose(scaled.sums[name], row, rtol=1e-6, err_msg=name)
    assert scaled.squares.tolist() == pytest.approx(plain.squares.tolist())
    assert (plain.may_be_refused, scaled.may_be_refused) == (False, True)


def test_a_short_window_is_corrected_but_not_what_the_optimizer_uses() -> None:
    network = model()
    plain = taken(network, histogram=True)
    tensors = Scope.of(network).tensors
    columns = Columns.of(tuple(dict.fromkeys(t.layer for t in tensors)), tensors)
    context = StepContext(step=0, accumulated_batches=1, window_batches=4)
    gradients = [parameter.grad for parameter in columns.parameters]
    short = take_snapshot(columns, gradients, context, histogram=True)
    expected = {"squares": 16.0, "total": 4.0, "abs_max": 4.0}
    for name in ("squares", "total", "abs_max", "zeros", "nonfinite", "param_squares"):
        wanted = plain.sums[name] * expected.get(name, 1.0)
        np.testing.assert_allclose(short.sums[name], wanted, rtol=1e-12, err_msg=name)
    assert short.squares.tolist() == pytest.approx(plain.squares.tolist())
    # Two octaves up.
    moved, before = short.sums["histogram"][:, 5:-3], plain.sums["histogram"][:, 3:-5]
    np.testing.assert_array_equal(moved, before)


def test_infinite_parameters_are_no_reason_to_warn() -> None:
    network = model()
    with torch.no_grad():
        network[0].weight[0, 0] = float("inf")
    step = taken(network, scale=torch.tensor(2.0))
    change = measure_update(step)["update_squares"]  # warnings are errors here
    assert torch.as_tensor(change).isnan().sum() == 1
