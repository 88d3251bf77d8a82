"""What people use today to look at gradients, each as a callback.

In: a training. Out: numbers per parameter, at every step, to TensorBoard or to wandb. Each is
written as its documentation shows. wandb and ignite are imported when they are used, so that the
other lanes need neither.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import grad_norm
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = [
    "AddHistogram",
    "Ignite",
    "LightningGradNorm",
    "NormsOneByOne",
    "Wandb",
]


class LightningGradNorm(pl.Callback):
    """Lightning's `grad_norm`, logged as Lightning's documentation shows."""

    def on_before_optimizer_step(
        self, _trainer: pl.Trainer, pl_module: pl.LightningModule, _optimizer: Optimizer
    ) -> None:
        """Log the norm of each gradient, and of all."""
        pl_module.log_dict(grad_norm(pl_module, norm_type=2))


class AddHistogram(pl.Callback):
    """A loop over the parameters, as found in many projects."""

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, _optimizer: Optimizer
    ) -> None:
        """Write a histogram of each gradient."""
        writer: Any = trainer.logger.experiment  # type: ignore[union-attr]  # there is one
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                writer.add_histogram(f"gradients/{name}", parameter.grad, trainer.global_step)


class NormsOneByOne(pl.Callback):
    """Four norms per parameter, one ``.item()`` each: the algorithm of Composer's monitor.

    Composer's ``OptimizerMonitor`` is described as logging, for every parameter, the L2 norms of
    its gradient, of its value, of Adam's first moment and of the step that Adam is about to take,
    and the norm of all gradients. This computes the same in the plainest way. Composer looks at
    every tenth batch by default.
    """

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Log the norms."""
        norms: dict[str, float] = {}
        squares = 0.0
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is None:
                continue
            size = parameter.grad.norm().item()
            squares += size**2
            norms[f"l2_norm/grad/{name}"] = size
            norms[f"l2_norm/param/{name}"] = parameter.detach().norm().item()
            state = optimizer.state[parameter]
            if state:
                norms[f"l2_norm/moment/{name}"] = state["exp_avg"].norm().item()
                update = _adam_update(state, optimizer.param_groups[0])
                norms[f"l2_norm/update/{name}"] = update.norm().item()
        norms["l2_norm/grad/global"] = squares**0.5
        every = getattr(trainer, "log_every_n_steps", 0)
        if trainer.logger and every and (trainer.global_step + 1) % every == 0:
            trainer.logger.log_metrics(norms, trainer.global_step)


def _adam_update(state: Mapping[str, Tensor], group: Mapping[str, Any]) -> Tensor:
    """Return the latest step of Adam, from its moments (Kingma and Ba, 2015, algorithm 1)."""
    beta1, beta2 = group["betas"]
    count = state["step"]
    mean = state["exp_avg"] / (1.0 - beta1**count)
    variance = state["exp_avg_sq"] / (1.0 - beta2**count)
    update: Tensor = mean.div_(variance.sqrt_().add_(group["eps"])).mul_(-group["lr"])
    return update


class Ignite(pl.Callback):
    """A handler of pytorch-ignite, called at every step with an engine that counts steps.

    Args:
        handler: ``"GradsScalarHandler"`` or ``"GradsHistHandler"``.
        folder: Where ignite's logger writes.
    """

    def __init__(self, handler: str, folder: Path) -> None:
        self._kind, self._folder = handler, folder / "ignite"

    def on_fit_start(self, _trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the handler, as a training loop of ignite would."""
        tensorboard: Any = import_module("ignite.handlers.tensorboard_logger")
        engines: Any = import_module("ignite.engine")
        self._logger = tensorboard.TensorboardLogger(log_dir=str(self._folder))
        self._handler = getattr(tensorboard, self._kind)(pl_module)
        self._engine = engines.Engine(lambda _engine, _batch: None)
        self._event = engines.Events.ITERATION_COMPLETED

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, _module: pl.LightningModule, _optimizer: Optimizer
    ) -> None:
        """Let the handler look at the gradients."""
        self._engine.state.iteration = trainer.global_step
        self._handler(self._engine, self._logger, self._event)

    def on_fit_end(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Close the files."""
        self._logger.close()


class Wandb(pl.Callback):
    """``wandb.watch`` at every step, offline.

    What wandb does in its second process, and later with its server, is not seen here.

    Args:
        what: ``"gradients"`` or ``"all"``, which adds the parameters.
        folder: Where wandb writes.
    """

    def __init__(self, what: str, folder: Path) -> None:
        self._what, self._folder = what, folder

    def on_fit_start(self, _trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Watch the inner network: hooks of the outer module would never be called."""
        self._folder.mkdir(parents=True, exist_ok=True)
        os.environ |= {"WANDB_SILENT": "true", "WANDB_MODE": "offline"}
        self._wandb: Any = import_module("wandb")
        settings = self._wandb.Settings(silent=True, console="off", x_disable_stats=True)
        self._run = self._wandb.init(
            project="overhead",
            dir=self._folder,
            mode="offline",
            reinit="create_new",
            settings=settings,
        )
        network: nn.Module = pl_module.network  # type: ignore[assignment]
        self._run.watch(network, log=self._what, log_freq=1)

    def on_train_batch_start(self, *_: object) -> None:
        """Make this the run that the hooks write to: they ask wandb for a global one."""
        self._wandb.run = self._run

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, *_: object
    ) -> None:
        """Commit the step, as a user's own logging does."""
        self._run.log({"trainer/global_step": trainer.global_step})

    def on_fit_end(self, *_: object) -> None:
        """Let wandb write all that it has."""
        self._run.finish()
