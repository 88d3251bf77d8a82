"""One pass through a model, forward and back, with weights of our choice.

In: a model, a batch, how it ends in a gradient. Out: one `LayerSignal` per layer. The weights and
buffers that the pass uses are copies; see `untouched` for all else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_gradguard.errors import GradGuardError
from lightning_gradguard.initialisation.batch import NOTHING, call, copied, split
from lightning_gradguard.initialisation.layers import Layers
from lightning_gradguard.initialisation.recorder import Recorder, floating
from lightning_gradguard.initialisation.signal import LayerSignal

__all__ = ["Ending", "Loss", "Task", "make_task"]

Loss: TypeAlias = Callable[..., Tensor] | Literal["random"] | None
_NOT_THEIR_OWN: Final = ("lightning.pytorch.core.module", "pytorch_lightning.core.module")
"""Where the training step of a model is that has none."""

Ending = Literal["training_step", "loss", "model", "random"]


@dataclass(frozen=True, eq=False)
class Task:
    """How a model is run.

    Attributes:
        model: The model, without wrappers.
        layers: What is watched in it.
        forward: Runs it on a copy of the batch; returns a loss, or the output.
        ending: Where the gradient comes from.
    """

    model: nn.Module
    layers: Layers
    forward: Callable[[], Any]
    ending: Ending

    def run(self, weights: Mapping[str, Tensor]) -> tuple[tuple[LayerSignal, ...], Ending]:
        """Return what each layer puts out and gets back.

        Args:
            weights: What takes the place of parameters, by name; the others are copied.

        Raises:
            GradGuardError: The model or its loss raised, or no gradient can flow.
        """
        recorder = Recorder(self.model, self.layers)
        try:
            output = functional_call(_Around(self.model, self.forward), self._stand_ins(weights))
            recorder.remove()
            ends, gradients, ending = _ends(output, self.ending)
            return recorder.read(ends, gradients), ending
        except GradGuardError:
            raise
        except Exception as error:
            raise GradGuardError(_told(error, recorder, self.ending)) from error
        finally:
            recorder.remove()

    def _stand_ins(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = {name: _leaf(weights.get(name, p)) for name, p in self.model.named_parameters()}
        own |= {name: buffer.detach().clone() for name, buffer in self.model.named_buffers()}
        return {f"model.{name}": tensor for name, tensor in own.items()}


class _Around(nn.Module):
    """Holds a model, so that methods other than `forward` run with other weights, too."""

    def __init__(self, model: nn.Module, run: Callable[[], Any]) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self) -> Any:  # noqa: ANN401 - whatever a model returns
        return self.run()


def _leaf(tensor: Tensor) -> Tensor:
    # Frozen layers, too: what is asked for is the gradient with respect to outputs.
    copy = tensor.detach().clone()
    return copy.requires_grad_(copy.is_floating_point() or copy.is_complex())


def _ends(output: Any, ending: Ending) -> tuple[list[Tensor], list[Tensor], Ending]:  # noqa: ANN401
    """Return where to go backward from, and with which gradient."""
    if ending == "random":
        own = output.get("loss") if isinstance(output, Mapping) else None
        if isinstance(own, Tensor) and own.numel() == 1 and own.requires_grad:
            return [own], [torch.ones_like(own)], "model"
        ends = [tensor for tensor in floating(output) if tensor.requires_grad]
        if not ends:
            msg = (
                "`preflight` needs an output that depends on the weights, got "
                f"{_described(output)}. Take away `torch.no_grad` or `detach`, or give `loss`."
            )
            raise GradGuardError(msg)
        return ends, [torch.randn_like(tensor) for tensor in ends], ending
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        msg = (
            f"`{ending}` must return a loss: one number that depends on the weights, got "
            f"{_described(loss)}."
        )
        raise GradGuardError(msg)
    return [loss], [torch.ones_like(loss)], ending


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        graph = "" if value.requires_grad else ", which no gradient flows from"
        return f"a tensor of shape {tuple(value.shape)}{graph}"
    return repr(value) if value is None else f"a {type(value).__name__}"


def _told(error: Exception, recorder: Recorder, ending: Ending) -> str:
    advice = "Give a batch as the model's data loader does"
    if ending == "training_step":
        advice += ", or, where the step needs a trainer, `loss`, which is used in its place"
    after = f" (last called: {recorder.last_called})" if recorder.last_called else ""
    return (
        f"`preflight` needs a model that takes the batch, got {type(error).__name__}: {error}"
        f"{after}. {advice}."
    )


def make_task(
    model: nn.Module,
    batch: Any,  # noqa: ANN401 - any data loader
    loss: Loss,
    layers: Layers,
    device: torch.device,
) -> Task:
    """Return how a model is to be run: by its own training step, a given loss, or its output.

    Raises:
        ValueError: A training step that optimizes by hand, and no ``loss``; or a batch that is
            neither inputs nor (inputs, targets).
    """
    if loss is None and has_training_step(model):
        if not getattr(model, "automatic_optimization", True):
            msg = (
                "`loss` must be given for a model that optimizes by hand, got "
                "automatic_optimization=False: its `training_step` returns no loss to start from."
            )
            raise ValueError(msg)
        return Task(model, layers, lambda: _step(model, copied(batch, device)), "training_step")
    inputs, targets = split(batch)
    if not callable(loss):
        return Task(model, layers, lambda: call(model, copied(inputs, device)), "random")

    def forward() -> Tensor:
        output = call(model, copied(inputs, device))
        return loss(output) if targets is NOTHING else loss(output, copied(targets, device))

    return Task(model, layers, forward, "loss")


def has_training_step(model: nn.Module) -> bool:
    """Whether a model is one of Lightning's, with a training step of its own."""
    step = getattr(type(model), "training_step", None)
    home = getattr(step, "__module__", None) or ""
    return callable(step) and home not in _NOT_THEIR_OWN


def _step(model: Any, batch: Any) -> Any:  # noqa: ANN401 - Lightning is not imported here
    step = model.training_step
    try:
        inspect.signature(step).bind(batch, 0)
    except TypeError:
        return step(batch)
    return step(batch, 0)
