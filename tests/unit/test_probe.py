"""The probe outside Lightning: reading, refusing, and finding parameters that come later."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from lightning_gradguard import Probe
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.errors import GradGuardError, NoGradientError, ShardedGradientError


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def backward(model: nn.Module, width: int = 3) -> None:
    model(torch.ones(5, width)).square().sum().backward()


def test_reading_without_gradients_says_when_to_read():
    probe = Probe(two_layers())
    with pytest.raises(NoGradientError, match=r"found no gradients. Call it after `backward\(\)`"):
        probe.read(step=0)


def test_an_unknown_grouping_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="must be 'module' or 'parameter', got 'tensor'"):
        Probe(two_layers(), group_by="tensor")


def test_rows_may_be_single_parameters():
    model = two_layers()
    probe = Probe(model, group_by="parameter")
    backward(model)
    frame = probe.read(step=0)
    assert frame.layers == ("0.weight", "0.bias", "2.weight", "2.bias")
    expected = [parameter.grad.double().norm().item() for parameter in model.parameters()]
    assert frame.grad_norm.tolist() == pytest.approx(expected, rel=1e-6)


def test_a_layer_without_gradient_is_nan_and_never_zero():
    model = two_layers()
    probe = Probe(model)
    backward(model)
    model[0].zero_grad()
    frame = probe.read(step=0)
    assert math.isnan(frame.grad_norm[0])
    assert frame.grad_norm[1] > 0.0
    assert probe.never_received == ("0.weight", "0.bias")


def test_a_lazy_layer_is_watched_as_soon_as_it_has_a_shape():
    model = nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(2))
    probe = Probe(model)
    assert tuple(probe.scope.lazy) == ("1.weight", "1.bias")
    backward(model)
    assert probe.read(step=0).layers == ("0", "1")
    assert probe.scope.lazy == {}


def test_a_parameter_that_was_replaced_is_watched_in_its_place():
    model = two_layers()
    probe = Probe(model)
    backward(model)
    probe.read(step=0)
    model[2] = nn.Linear(4, 7)
    model.zero_grad()
    backward(model)
    frame = probe.read(step=1)
    assert frame.grad_norm[1] == pytest.approx(
        math.hypot(model[2].weight.grad.norm().item(), model[2].bias.grad.norm().item()), rel=1e-6
    )


def test_a_step_that_was_not_made_moves_nothing():
    model = two_layers()
    probe = Probe(model)
    backward(model)
    probe.before_update(model.parameters(), StepContext(step=0, batch_idx=0), loss=1.5)
    probe.before_update(model.parameters(), StepContext(step=0, batch_idx=1), loss=2.5)
    (skipped,) = probe.collect()
    assert skipped.loss == 1.5
    assert not skipped.stepped
    assert skipped.update_norm.tolist() == [0.0, 0.0]
    assert skipped.global_grad_norm_at_update is None


def test_sharded_parameters_are_refused_by_name(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        model = two_layers()
        mesh = init_device_mesh("cpu", (1,))
        sharded = distribute_tensor(model[2].weight.detach(), mesh, [Shard(0)])
        model[2].weight = nn.Parameter(sharded)
        probe = Probe(model)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        with pytest.raises(ShardedGradientError, match=r"sharded parameter '2\.weight'\. Use DDP"):
            probe.read(step=0)
    finally:
        torch.distributed.destroy_process_group()


def test_parameters_on_two_devices_are_refused_with_their_names():
    model = two_layers()
    model[2].to("meta")
    with pytest.raises(GradGuardError, match="must be on one device, got cpu, meta"):
        Probe(model).read(step=0)
