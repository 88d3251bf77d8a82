"""The look at the gradients alone, on a device: against one read of them, and as it grows.

In: a device and sizes. Out: milliseconds of the device, and of the thread that drives it, for the
probe's step and for the least that anybody could do. Nothing is trained.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn

from benchmarks.gpu_training import Gpt2, Size
from benchmarks.scaling import Weight
from benchmarks.shares import Share, share
from lightning_gradguard import Probe
from lightning_gradguard.assemble import StepContext
from lightning_gradguard.measure import device as device_backend
from lightning_gradguard.measure import foreach, kernel

__all__ = ["Cost", "costs_of_entries", "costs_of_reading", "costs_of_tensors", "uses_kernel"]

ENTRIES: Final = (10**5, 10**6, 10**7, 10**8, 10**9)
TENSORS: Final = (10, 100, 1000, 5000)
_TENSORS_OF_ENTRIES: Final = 32
_WARM_UP: Final = 3


@dataclass(frozen=True)
class Cost:
    """What one piece of work takes.

    Attributes:
        name: Of the work.
        size: Entries or tensors.
        device_ms: Milliseconds until the device has done it.
        host_ms: Milliseconds until the calling thread goes on.
    """

    name: str
    size: int
    device_ms: Share
    host_ms: Share


def uses_kernel(device: torch.device) -> bool:
    """Whether large tensors are read by the package's own kernel there."""
    return kernel.is_usable(device, reference=foreach.read)


def costs_of_reading(size: Size, device: torch.device, repeats: int) -> list[Cost]:
    """Measure one read of all gradients of the model, and the probe's step."""
    torch.manual_seed(0)
    with device:
        model = Gpt2(size)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    entries = sum(gradient.numel() for gradient in gradients)
    works: dict[str, Callable[[], object]] = {
        "`torch._foreach_norm` and `stack`": lambda: _norms(gradients),
        "all gradients, four statistics, as the package reads large ones": lambda: (
            device_backend.read_large(gradients)
        ),
        "the same by torch's own operators": lambda: foreach.read(gradients),
        "the probe's whole step": _probe_step(model),
    }
    return [_cost(name, entries, work, device, repeats) for name, work in works.items()]


def _norms(gradients: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(list(gradients)))  # noqa: SLF001 - what is compared


def costs_of_entries(sizes: Sequence[int], device: torch.device, repeats: int) -> list[Cost]:
    """Measure the probe's step for 32 tensors with so many entries in all."""
    costs = []
    for size in sizes:
        if _fits(size, device):
            each = size // _TENSORS_OF_ENTRIES
            cost = _of_layers(_TENSORS_OF_ENTRIES, each, device, repeats)
            costs.append(replace(cost, size=size))
    return costs


def costs_of_tensors(
    sizes: Sequence[int], entries: int, device: torch.device, repeats: int
) -> list[Cost]:
    """Measure the probe's step for so many tensors, each in a layer of its own."""
    return [_of_layers(size, entries, device, repeats) for size in sizes]


def _fits(entries: int, device: torch.device) -> bool:
    """Whether parameters and gradients in float32 take less than half of the device."""
    if device.type != "cuda":
        return True
    return 8 * entries < torch.cuda.get_device_properties(device).total_memory / 2


def _of_layers(tensors: int, entries: int, device: torch.device, repeats: int) -> Cost:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    layers = [Weight(8) for _ in range(tensors)]
    for layer in layers:
        # `Weight` makes its numbers on the CPU, where a billion would take a while.
        layer.weight = nn.Parameter(torch.ones(entries // 8, 8, device=device))
        layer.weight.grad = torch.randn(entries // 8, 8, device=device)
    work = _probe_step(nn.Sequential(*layers))
    return _cost("the probe's whole step", tensors, work, device, repeats)


def _probe_step(model: nn.Module) -> Callable[[], None]:
    """Return a step of a probe over the model; each call reads what the one before has sent."""
    probe, parameters, step = Probe(model), list(model.parameters()), -1
    probe.remove_hooks()

    def run() -> None:
        nonlocal step
        step += 1
        probe.collect()
        probe.before_update(parameters, StepContext(step=step, batch_idx=step))
        probe.after_update(0)

    return run


def _cost(
    name: str, size: int, work: Callable[[], object], device: torch.device, repeats: int
) -> Cost:
    device_ms, host_ms = [], []
    for _ in range(_WARM_UP + repeats):
        _wait(device)
        start = time.perf_counter()
        work()
        host_ms.append(1e3 * (time.perf_counter() - start))
        _wait(device)
        device_ms.append(1e3 * (time.perf_counter() - start))
    return Cost(name, size, share(device_ms[_WARM_UP:]), share(host_ms[_WARM_UP:]))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
