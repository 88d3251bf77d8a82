"""What is read off a Trainer and its optimizers.

In: a Trainer. Out: plain answers for the callbacks. Everything that depends on how Lightning
keeps its things is here, and nothing is changed.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from lightning_gradguard.actions.averages import Average
from lightning_gradguard.actions.step_state import parameters_of
from lightning_gradguard.host_memory import host_memory
from lightning_gradguard.ranks import Ranks
from lightning_gradguard.sinks import ConsoleSink, LoggerSink, Sink, TensorBoardSink

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

__all__ = [
    "default_sinks",
    "gradient_scale",
    "has_scaler",
    "index_of",
    "is_disabled",
    "is_sharded",
    "largest_over_ranks",
    "learning_rates",
    "log_every_n_steps",
    "log_folder",
    "loss_scale",
    "others_with_state",
    "parameters_of",
    "ranks",
    "reason_not_to_watch",
    "run_name",
    "scale_in",
    "scaler",
    "share_of_host_memory",
    "window_batches",
]

_UNKNOWN: Final = 1 << 62
"""Bytes that no machine has; a power of two, which float32 keeps."""

_NOT_SET: Final = {"", "0", "false", "no", "off"}


def reason_not_to_watch(trainer: Trainer) -> str | None:
    """Return why nothing can be watched here, or None; warns of what is not a wish."""
    if is_disabled():
        return "switched off by the environment variable GRADGUARD_DISABLE"
    if not is_sharded(trainer):
        return None
    strategy = type(trainer.strategy).__name__
    reason = (
        f"gradguard needs whole gradients on each rank, got {strategy}, which keeps only a part"
    )
    warnings.warn(f"{reason}: nothing will be watched. Use DDP or a single device.", stacklevel=3)
    return reason


def is_disabled() -> bool:
    """Whether the environment switches everything off."""
    return os.environ.get("GRADGUARD_DISABLE", "").lower() not in _NOT_SET


def is_fit(trainer: Trainer) -> bool:
    """Whether the trainer was asked to train, not to validate, test or predict."""
    return trainer.state.fn == "fit"


def is_sharded(trainer: Trainer) -> bool:
    """Whether the strategy keeps gradients in parts, and not where torch has them."""
    strategy = type(trainer.strategy).__name__
    return "DeepSpeed" in strategy or "FSDP" in strategy


def default_sinks(trainer: Trainer) -> list[Sink]:
    """Return the console and one sink per logger."""
    # Under `fast_dev_run` the loggers are dummies that take anything.
    loggers = [] if getattr(trainer, "fast_dev_run", False) else trainer.loggers
    return [ConsoleSink(), *map(_sink_for, loggers)]


def _sink_for(logger: Any) -> Sink:  # noqa: ANN401 - any logger
    writer: Any = getattr(logger, "experiment", None)
    if hasattr(writer, "add_histogram_raw") and hasattr(writer, "add_text"):
        return TensorBoardSink(writer)
    return LoggerSink(logger)


def log_folder(trainer: Trainer) -> Path | None:
    """Return the folder that the first logger writes to, None without one on a local disk.

    It is `Trainer.log_dir`, which would make all ranks wait for each other.
    """
    if getattr(trainer, "fast_dev_run", False) or not trainer.loggers:
        return None
    logger: Any = trainer.loggers[0]
    folder = getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None)
    if not isinstance(folder, (str, os.PathLike)) or "://" in str(folder):
        return None
    return Path(folder)


def run_name(trainer: Trainer) -> str:
    """Return what the run is called: its folder and the one above, or what there is of them."""
    folder = log_folder(trainer)
    return "" if folder is None else "/".join(folder.parts[-2:])


def log_every_n_steps(trainer: Trainer) -> int:
    """Return the trainer's setting, which it gives itself at run time; 0 under ``barebones``."""
    return int(getattr(trainer, "log_every_n_steps", 0))


def index_of(optimizer: torch.optim.Optimizer, trainer: Trainer) -> int | None:
    """Return the optimizer's position, or None for one that the trainer does not know."""
    known = (i for i, other in enumerate(trainer.optimizers) if other is optimizer)
    return next(known, None)


def learning_rates(optimizer: torch.optim.Optimizer) -> tuple[float, ...]:
    """Return one rate per group, NaN where there is none to read without waiting."""
    rates = (group.get("lr") for group in optimizer.param_groups)
    return tuple(float(rate) if isinstance(rate, (int, float)) else float("nan") for rate in rates)


def window_batches(trainer: Trainer, pl_module: LightningModule) -> int:
    """Return how many batches each loss is divided by, which Lightning does by itself only."""
    if not pl_module.automatic_optimization:
        return 1
    return max(1, int(trainer.accumulate_grad_batches))


def largest_over_ranks(trainer: Trainer, number: int) -> int:
    """Return the largest of all ranks' numbers; every rank must ask."""
    if trainer.world_size == 1:
        return number
    mine = torch.tensor(float(number), device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(mine, reduce_op="max"))


def scale_in(optimizer: torch.optim.Optimizer) -> Tensor | None:
    """Return what a gradient scaler told a fused optimizer to divide by in its step, or None."""
    scale: Tensor | None = getattr(optimizer, "grad_scale", None)
    return scale


def scaler(trainer: Trainer) -> Any:  # noqa: ANN401 - torch's, or a plugin's own
    """Return the gradient scaler, or None."""
    return getattr(trainer.precision_plugin, "scaler", None)


def share_of_host_memory(trainer: Trainer) -> int | None:
    """Return a quarter of the memory there is, in bytes, divided by the processes that train here.

    The smallest of all ranks', so that all keep as many states; every rank must ask. None where
    no system says how much it has.
    """
    whole = host_memory()
    share = _UNKNOWN if whole is None else whole // 4 // max(1, trainer.num_devices)
    least = -largest_over_ranks(trainer, -share)
    return None if least >= _UNKNOWN else least


def others_with_state(trainer: Trainer) -> list[Any]:
    """Return what has a state beside model and optimizers.

    These are schedules, the gradient scaler, and averages of the weights that callbacks keep:
    `StochasticWeightAveraging`, `WeightAveraging` and those made from it.
    """
    schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
    found = [*schedules, scaler(trainer), *_averages(trainer)]
    return [one for one in found if callable(getattr(one, "load_state_dict", None))]


def _averages(trainer: Trainer) -> list[Average]:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    found = [(callback, getattr(callback, "_average_model", None)) for callback in callbacks]
    return [
        Average(callback, average, trainer.lightning_module)
        for callback, average in found
        if isinstance(average, nn.Module)
    ]


def ranks(trainer: Trainer) -> Ranks:
    """Return how the processes of a training agree."""

    def reduce(number: Tensor, how: str) -> Tensor:
        reduced: Tensor = trainer.strategy.reduce(number, reduce_op=how)
        return reduced

    return Ranks(trainer.world_size, reduce, trainer.strategy.root_device)


def gradient_scale(trainer: Trainer, optimizer: torch.optim.Optimizer) -> Tensor | None:
    """Return the factor that is still in the gradients: fused optimizers unscale in their step."""
    parameters = parameters_of(optimizer)
    if not parameters or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    return loss_scale(trainer, parameters[0].device)


def has_scaler(trainer: Trainer) -> bool:
    """Whether a gradient scaler decides which steps are made."""
    return scaler(trainer) is not None


def loss_scale(trainer: Trainer, device: torch.device) -> Tensor | None:
    """Return the factor of the gradient scaler, shape ``()``, or None without one."""
    known = scaler(trainer)
    if known is None:
        return None
    # Scaling a one gives the factor without asking the device for it, as `get_scale` would.
    scale: Tensor = known.scale(torch.ones((), device=device))
    return scale
