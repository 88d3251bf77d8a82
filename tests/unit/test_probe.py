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


class Loop:
    """A plain loop: gradients, something in between, a step, a frame."""

    def __init__(self, model, optimizer=None):
        self.model = model
        self.optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.01)
        self.probe = Probe(model)
        self.step = 0

    def frame(self, between=lambda _: None):
        parameters = list(self.model.parameters())
        self.optimizer.zero_grad()
        backward(self.model)
        self.probe.before_update(parameters, StepContext(step=self.step, batch_idx=self.step))
        between(parameters)
        self.optimizer.step()
        self.probe.after_update(0)
        self.step += 1
        return self.probe.collect()[-1]


def scale_data(parameters):
    for parameter in parameters:
        parameter.grad.data.mul_(0.25)  # behind autograd's back


def replace(parameters):
    for parameter in parameters:
        smaller = parameter.grad.numpy() * 0.25
        parameter.grad = None
        parameter.grad = torch.from_numpy(smaller)


def test_a_parameter_that_grows_in_place_is_not_mixed_up_with_its_neighbours():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    model = nn.ModuleList([first, second])
    probe = Probe(model)
    for rows in (4, 8):
        first.weight.grad = None
        first.weight.data = torch.ones(rows, 4)
        first.weight.grad = torch.ones(rows, 4)
        second.weight.grad = torch.full((4, 4), 100.0)
        frame = probe.read(step=0)
        assert frame.grad_norm.tolist() == pytest.approx([math.sqrt(rows * 4), 400.0])
        assert frame.param_norm[0] == pytest.approx(math.sqrt(rows * 4))


def test_a_norm_that_the_optimizer_itself_raises_is_no_clipping():
    model = two_layers()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, foreach=True
    )
    loop = Loop(model, optimizer)
    loop.frame()
    frame = loop.frame()
    assert frame.global_grad_norm_at_update is None
    assert frame.clip_coefficient is None
    assert frame.clipped_fraction is None


@pytest.mark.parametrize(
    ("way", "begin"), [(scale_data, 1), (scale_data, 50), (replace, 1), (replace, 25)]
)
def test_clipping_is_seen_in_whatever_way_and_whenever_it_begins(way, begin):
    loop = Loop(two_layers())
    for _ in range(begin):
        assert loop.frame().clip_coefficient == 1.0
    frame = loop.frame(way)
    assert frame.clip_coefficient == pytest.approx(0.25, rel=1e-6)
    assert frame.clipped_fraction in {1.0, None}
    assert loop.frame(way).clipped_fraction == 1.0


def test_a_rare_clipping_has_its_share_from_the_second_time_on():
    loop = Loop(two_layers())
    frames = [loop.frame(replace if step % 7 == 3 else lambda _: None) for step in range(30)]
    expected = [1.0 if step % 7 == 3 else 0.0 for step in range(30)]
    expected[3] = None  # nobody had clipped, so nothing was kept to compare with
    assert [frame.clipped_fraction for frame in frames] == expected


def test_gradients_of_inference_mode_are_measured():
    model = nn.Linear(3, 1, bias=False)
    with torch.inference_mode():
        model.weight.grad = torch.tensor([[3.0, 0.0, 4.0]])
    assert Probe(model).read(step=0).global_grad_norm == 5.0


def test_the_deviation_of_nearly_equal_entries_of_a_large_tensor_is_right():
    model = nn.Linear(300, 300, bias=False)
    model.weight.grad = 1.0 + 1e-4 * torch.randn(300, 300)
    exact = model.weight.grad.double().std(correction=0).item()
    assert Probe(model).read(step=0).grad_std[0] == pytest.approx(exact, rel=1e-4)


def test_nothing_is_held_after_the_probe_let_go():
    loop = Loop(two_layers())
    parameters = list(loop.model.parameters())
    backward(loop.model)
    loop.probe.before_update(parameters, StepContext(step=0))
    loop.probe.release()
    loop.probe.after_update(0)
    assert loop.probe.collect() == []


def test_a_loop_that_is_compiled_as_a_whole_is_read_like_any_other() -> None:
    model, batch = nn.Linear(3, 1), torch.ones(2, 3)
    probe = Probe(model)

    def step():
        model.zero_grad()
        model(batch).sum().backward()
        return probe.read(0)

    torch.compiler.reset()
    frame = torch.compile(step, backend="eager")()
    torch.compiler.reset()
    assert frame.global_grad_norm == pytest.approx(4.0)  # weight (2, 2, 2), bias 2
