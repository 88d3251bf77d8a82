"""Between backward and the one copy, nothing asks the device for a number, and little is launched.

On the CPU nothing has to wait; here the backend of devices is made to work there and is counted.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gradguard import GradientMonitor, Probe, devices
from lightning_gradguard.assemble import StepContext
from tests.e2e.models import Classifier, TwoOptimizers, mlp, random_data, recurrent, trainer

WAITING_OPERATORS = (
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::equal",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::masked_select",
    "aten::bincount",
    "aten::_unique2",
    "aten::repeat_interleave",
)
WAITING_METHODS = ("tolist", "numpy", "cpu", "__array__")
WITHOUT_KERNEL = (
    "view",
    "_unsafe_view",
    "unfold",
    "split",
    "slice",
    "select",
    "permute",
    "detach",
    "alias",
    "unbind",
    "unsqueeze",
)


@pytest.fixture(autouse=True)
def _as_on_a_device(monkeypatch):
    monkeypatch.setattr(devices, "is_host", lambda _device: False)


class Calls(TorchDispatchMode):
    """Count calls of operators, by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.name().split(".")[0]] += 1
        return function(*args, **(kwargs or {}))


def patched(counts, method):
    original = getattr(torch.Tensor, method)

    def counted(tensor, *args, **kwargs):
        counts[method] += 1
        return original(tensor, *args, **kwargs)

    return mock.patch.object(torch.Tensor, method, counted)


def patched_to(counts):
    """Count copies to a device by name; to the model's own, which is the CPU here, is none."""
    original = torch.Tensor.to

    def counted(tensor, *args, **kwargs):
        if any(isinstance(to, str) for to in (*args, kwargs.get("device"))):
            counts["to"] += 1
        return original(tensor, *args, **kwargs)

    return mock.patch.object(torch.Tensor, "to", counted)


def waits(make_model, data, callbacks, *, with_scaler=False, **options):
    """Train, and count what would wait for a GPU."""
    pl.seed_everything(1, verbose=False)
    if with_scaler:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        options["plugins"] = [MixedPrecision("16-mixed", device="cpu", scaler=scaler)]
    fit = trainer(*callbacks, **{"max_epochs": 1, **options})
    calls, model = Calls(), make_model()
    with calls, ExitStack() as stack:
        stack.enter_context(patched_to(calls.counts))
        for method in WAITING_METHODS:
            stack.enter_context(patched(calls.counts, method))
        fit.fit(model, data)
    return Counter({n: calls.counts[n] for n in ("to", *WAITING_METHODS, *WAITING_OPERATORS)})


def sgd(network=mlp, **options):
    return lambda: Classifier(network(), torch.optim.SGD, **options)


def wide():
    return nn.Sequential(nn.Linear(6, 100), nn.Linear(100, 99), nn.Linear(99, 3))


ROWS = (64, 6)
BY_VALUE = {"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"}
MODES = {
    "mlp": (sgd(), ROWS, {}),
    "a large layer": (sgd(wide), ROWS, {}),
    "lstm with a profile over time": (sgd(recurrent), (64, 12, 2), {}),
    "histograms": (sgd(wide), ROWS, {"log_every_n_steps": 1}),
    "clipping by norm": (sgd(wide), ROWS, {"gradient_clip_val": 0.05}),
    "clipping by value": (sgd(wide), ROWS, BY_VALUE),
    "accumulation, short window": (sgd(wide), ROWS, {"accumulate_grad_batches": 3}),
    "scaler": (sgd(wide), ROWS, {"with_scaler": True}),
    "scaler, fused": (sgd(fused=True), ROWS, {"with_scaler": True}),
    "accumulation, scaler": (sgd(), ROWS, {"with_scaler": True, "accumulate_grad_batches": 2}),
    "two optimizers": (TwoOptimizers, ROWS, {}),
}


@pytest.mark.parametrize("name", MODES)
def test_a_watched_step_adds_the_one_copy_and_nothing_else(name):
    make_model, shape, options = MODES[name]
    data = random_data(*shape)
    monitor = GradientMonitor(sinks=[], on_error="raise")
    added = waits(make_model, data, [monitor], **options)
    added -= waits(make_model, data, [], **options)
    steps = monitor.summary().observed_steps
    assert steps >= 3
    # One copy a step: `.cpu()` and the view of its result as an array.
    assert added == {"cpu": steps, "numpy": steps}


def test_a_glance_and_the_decision_how_often_to_look_wait_for_nothing_but_their_copy():
    data = random_data(320, 6)
    monitor = GradientMonitor(sinks=[], on_error="raise", max_overhead=1e-9)
    added = waits(sgd(), data, [monitor], max_epochs=2)
    added -= waits(sgd(), data, [], max_epochs=2)
    summary = monitor.summary()
    assert summary.interval > 1
    assert summary.observed_steps < summary.steps == 80
    assert set(added) == {"cpu", "numpy"}
    # Every step is looked at or glanced at; the last glance is never read.
    assert added["cpu"] == added["numpy"] == summary.steps - 1


def test_the_counter_does_see_a_wait():
    class Asks(pl.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            module.network[0].weight.grad.norm().item()

    data = random_data(*ROWS)
    added = waits(sgd(), data, [Asks()]) - waits(sgd(), data, [])
    assert added["aten::_local_scalar_dense"] == 8


def kernels_per_step(small, large, *, histogram=False):
    """Count the operators of a step in mid-run that launch something on a device."""
    shapes = [(8 + i % 7, 8 + i % 5) for i in range(small)] + [(100, 100)] * large
    model = nn.ParameterList([nn.Parameter(torch.randn(shape)) for shape in shapes])
    for parameter in model:
        parameter.grad = torch.randn_like(parameter)
    probe, parameters, counts = Probe(model), list(model), Counter()
    for step in range(30):  # clipping is watched for at first
        with Calls() as calls:
            context = StepContext(step=step)
            probe.before_update(parameters, context, histogram=histogram)
            probe.after_update(0)
            probe.collect()
        counts = calls.counts
    launched = {n: c for n, c in counts.items() if n.split("::")[1] not in WITHOUT_KERNEL}
    return sum(launched.values())


@pytest.mark.parametrize("histogram", [False, True])
def test_small_tensors_cost_no_launches_of_their_own(histogram):
    few = kernels_per_step(10, 0, histogram=histogram)
    many = kernels_per_step(200, 0, histogram=histogram)
    assert few == many <= (70 if histogram else 40)


def test_a_large_tensor_costs_few_launches():
    one, five = kernels_per_step(10, 1), kernels_per_step(10, 5)
    assert five - one <= 4 * 8
    assert one <= 60


def test_tables_for_the_device_are_made_once(monkeypatch):
    from lightning_gradguard.measure import device

    network = nn.Linear(3, 4, dtype=torch.complex64)
    probe, parameters = Probe(network), list(network.parameters())
    made = []
    original = device._Tables
    monkeypatch.setattr(device, "_Tables", lambda **tables: made.append(1) or original(**tables))
    for step in range(4):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        probe.before_update(parameters, StepContext(step=step), histogram=True)
        probe.after_update(0)
    # Of the columns, and of the odd values that complex numbers are.
    assert len(made) == 2
