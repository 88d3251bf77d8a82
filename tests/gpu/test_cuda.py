"""On a CUDA device: the numbers of the CPU, in two launches, and never a wait."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gradguard import GradientMonitor, Probe, preflight
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.measure import device, foreach, kernel
from tests import oracles
from tests.e2e.models import random_data, trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CUDA = torch.device("cuda", 0)
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
EXACT = ("squares", "total", "abs_max", "nonfinite")


@pytest.fixture(autouse=True)
def _wanted(monkeypatch):
    monkeypatch.setenv("GRADGUARD_KERNEL", "1")


@pytest.fixture(params=["kernel", "torch"])
def reader(request, monkeypatch):
    """Read large tensors by the kernel, and then by torch's own operators."""
    if request.param == "torch":
        monkeypatch.setattr(kernel, "is_usable", lambda _device, **_: False)
    return request.param


def tensors(dtype):
    """Return odd sizes, layouts with gaps, and entries that float32 cannot square."""
    broken, extreme = torch.randn(70_001), torch.randn(70_001)
    broken[3], broken[-1] = float("nan"), float("-inf")
    extreme[::2], extreme[1::2] = 1e20, 1e-25
    matrix = torch.randn(300, 500)
    strided = [matrix.t(), matrix[::2, 1::3], matrix[:, :1].expand(300, 500), broken[1:]]
    return [t.to(CUDA, dtype) for t in (torch.randn(4097), broken, extreme, *strided)]


def assert_equals_float64(found, values):
    for column, value in zip(found.cpu().T.tolist(), values, strict=True):
        numbers = oracles.entries(value.cpu())
        expected = oracles.statistics(numbers)
        terms = float(np.abs(numbers).sum())
        for name, number in zip(EXACT, column, strict=True):
            atol = 1e-13 * terms if name == "total" and np.isfinite(terms) else 0.0
            np.testing.assert_allclose(number, expected[name], rtol=1e-12, atol=atol, err_msg=name)


def test_the_kernel_is_used_where_triton_is_installed():
    pytest.importorskip("triton")
    assert kernel.is_usable(CUDA, reference=foreach.read)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_tensors_equal_float64(dtype):
    values = tensors(dtype)
    assert_equals_float64(device.read_large(values), values)


@pytest.mark.usefixtures("reader")
def test_tensors_of_all_dtypes_equal_float64_together():
    values = [value for several in zip(*map(tensors, DTYPES), strict=True) for value in several]
    assert_equals_float64(device.read_large(values), values)


@pytest.mark.usefixtures("reader")
def test_the_same_gradients_give_the_same_bits_also_under_deterministic_algorithms():
    values = tensors(torch.float32)
    first = device.read_large(values)
    torch.use_deterministic_algorithms(mode=True)
    try:
        again = device.read_large(values)
    finally:
        torch.use_deterministic_algorithms(mode=False)
    torch.testing.assert_close(first, again, rtol=0.0, atol=0.0, equal_nan=True)


@pytest.mark.usefixtures("reader")
def test_memory_that_is_used_again_at_once_does_not_disturb_the_numbers():
    values = tensors(torch.float32)
    expected = foreach.read(values)
    found = [device.read_large([value.clone() for value in values]) for _ in range(20)]
    for rows in found:
        torch.testing.assert_close(rows, expected, rtol=1e-9, atol=0.0, equal_nan=True)


@pytest.mark.usefixtures("reader")
def test_another_stream_is_the_one_that_is_used():
    values = tensors(torch.float32)
    expected = foreach.read(values)
    device.read_large(values)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = device.read_large([value.clone() for value in values])
    torch.cuda.current_stream().wait_stream(stream)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0.0, equal_nan=True)


def network():
    return nn.Sequential(nn.Linear(6, 100), nn.Tanh(), nn.Linear(100, 99), nn.Linear(99, 3))


def frames_of(model, gradients, *, steps=3):
    """Return the frames of steps with given gradients, which one of them clips."""
    probe, frames = Probe(model), []
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    for step in range(steps):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = (gradient * (step + 1)).to(parameter)
        loss = torch.tensor(1.5, device=parameters[0].device)
        probe.before_update(parameters, StepContext(step=step), loss=loss, histogram=True)
        if step == 1:
            nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        probe.after_update(0)
        frames += probe.collect()
    return frames


@pytest.mark.usefixtures("reader")
def test_every_number_of_a_frame_is_that_of_the_cpu():
    here = network().double()
    there = copy.deepcopy(here).to(CUDA)
    gradients = [torch.randn(p.shape, dtype=torch.float64) for p in here.parameters()]
    gradients[0][0, 0] = 1e20
    for frame, same in zip(frames_of(here, gradients), frames_of(there, gradients), strict=True):
        for name, number in vars(frame).items():
            other = getattr(same, name)
            if isinstance(number, (float, np.ndarray)):
                np.testing.assert_allclose(other, number, rtol=1e-9, err_msg=name)
            else:
                assert other == number, name


class Forbids(pl.Callback):
    """Let torch raise whatever waits, from the start of a batch to the start of the next."""

    def __init__(self, first):
        self.first = first

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("error" if batch_idx >= self.first else "default")

    def on_train_epoch_end(self, trainer, module):
        torch.cuda.set_sync_debug_mode("default")


class OnDevice(pl.LightningModule):
    """Data that are on the device already: to fetch them is not the monitor's."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def training_step(self, batch, batch_idx):
        return self.network(torch.randn(8, 6, device=self.device)).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_clip_val": 1e-3}, {"log_every_n_steps": 1}, {"accumulate_grad_batches": 2}],
    ids=["plain", "clipping", "histograms", "accumulation"],
)
@pytest.mark.usefixtures("reader")
def test_a_whole_watched_step_never_synchronises(options):
    monitor = GradientMonitor(sinks=[], on_error="raise")
    fit = trainer(monitor, Forbids(4), max_epochs=1, accelerator="gpu", devices=1, **options)
    try:
        fit.fit(OnDevice(), random_data(64, 6))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert monitor.summary().observed_steps >= 3


def test_a_look_at_many_large_tensors_launches_as_often_as_at_few():
    pytest.importorskip("triton")

    def launches(count):
        values = [torch.randn(5000, device=CUDA) for _ in range(count)]
        device.read_large(values)
        with torch.profiler.profile() as profile:
            device.read_large(values)
        return sum("LaunchKernel" in event.name for event in profile.events())

    assert launches(3) == launches(300) == 2


def test_the_initialisation_check_follows_the_model_and_leaves_the_devices_random_numbers():
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
    inputs = torch.randn(32, 64)
    on_host, state = preflight(model, inputs), torch.cuda.get_rng_state(CUDA)
    on_device = preflight(model.to(CUDA), inputs)
    assert torch.equal(torch.cuda.get_rng_state(CUDA), state)
    for here, there in zip(on_host.alternatives, on_device.alternatives, strict=True):
        for layer, other in zip(here.layers, there.layers, strict=True):
            np.testing.assert_allclose(layer.forward_rms, other.forward_rms, rtol=1e-3)
