"""What a training asks of the driver: launches, waits and memory.

In: a lane of `gpu_training` and a device. Out: counts per step, where a step waited, and bytes.
"""

from __future__ import annotations

import gc
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytorch_lightning as pl
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_training import WARM_UP, Size, fit, monitors_of

__all__ = ["Calls", "calls_of", "memory_of", "wait_of"]

_COUNTED: Final = 5
_LAUNCHES: Final = ("cudaLaunchKernel", "cuLaunchKernel", "hipLaunchKernel", "hipExtLaunchKernel")
_COPIES: Final = ("cudaMemcpy", "cudaMemset", "hipMemcpy", "hipMemset")
_WAITS: Final = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


@dataclass(frozen=True)
class Calls:
    """What Python asks of the driver, per step.

    Attributes:
        launches: Kernels.
        copies: Copies and fills.
        waits: Waits for the device.
    """

    launches: float
    copies: float
    waits: float


class _Profiled(pl.Callback):
    """Profile some steps after the warm-up."""

    def __init__(self) -> None:
        activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        self.profile = profile(activities=activities, acc_events=True)

    def on_train_batch_start(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, _batch: object, batch_idx: int
    ) -> None:
        if batch_idx == WARM_UP:
            self.profile.start()
        if batch_idx == WARM_UP + _COUNTED:
            self.profile.stop()


def calls_of(lane: str, size: Size, device: torch.device) -> Calls:
    """Count what a lane's steps ask of the driver."""
    profiled = _Profiled()
    fit(size, device, WARM_UP + _COUNTED + 1, [profiled, *monitors_of(lane)])
    events: Any = profiled.profile.events()  # type: ignore[no-untyped-call]  # torch's own gap
    names = [event.name for event in events]
    counts = (
        sum(name.startswith(kind) for name in names) / _COUNTED
        for kind in (_LAUNCHES, _COPIES, _WAITS)
    )
    return Calls(*counts)


class _Forbids(pl.Callback):
    """Let torch raise whatever waits, for one step, from the start of a batch to the next."""

    def on_train_batch_start(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, _batch: object, batch_idx: int
    ) -> None:
        torch.cuda.set_sync_debug_mode("error" if batch_idx == WARM_UP else "default")


def wait_of(lane: str, size: Size, device: torch.device) -> str:
    """Return where a step waited for the device, or an empty text."""
    try:
        fit(size, device, WARM_UP + 2, [_Forbids(), *monitors_of(lane)])
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return _origin(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def _origin(error: BaseException) -> str:
    """Return the line that first raised: what cleans up after it may have raised again."""
    while error.__context__ is not None:
        error = error.__context__
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"`{Path(frame.filename).name}`, line {frame.lineno}: `{frame.line}`"


def memory_of(lane: str, size: Size, device: torch.device) -> int:
    """Return the most bytes that were allocated on the device during a short training."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    fit(size, device, WARM_UP, monitors_of(lane))
    return torch.cuda.max_memory_allocated(device) - before
