"""The initialisation check: what depth does to the signal before the first step.

In: a model and a batch. Out: a `Preflight`. The model is left as it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gradguard.errors import GradGuardError
from lightning_gradguard.initialisation.draws import INITIALISATIONS, Draw, can_be_drawn, draw
from lightning_gradguard.initialisation.layers import Layers, matrix_layers
from lightning_gradguard.initialisation.notes import notes_on, zero_layers
from lightning_gradguard.initialisation.passes import Ending, Loss, Task, make_task
from lightning_gradguard.initialisation.record import Preflight
from lightning_gradguard.initialisation.requirements import (
    check_arguments,
    check_parameters,
    without_wrappers,
)
from lightning_gradguard.initialisation.signal import LayerSignal, Signal
from lightning_gradguard.initialisation.untouched import eager, seeded, silent, untouched
from lightning_gradguard.roles import LEFT_OUT

__all__ = ["preflight"]


def preflight(model: nn.Module, batch: Any, *, loss: Loss = None, seed: int = 0) -> Preflight:  # noqa: ANN401 - any data loader
    """Measure what depth does to the signal at initialisation, layer by layer.

    The same is measured again with the weight matrices drawn by Xavier's rule, by He's, and
    orthogonal, so that an initialisation is named only where it was seen to keep the signal.

    Args:
        model: Any module whose parameters have shapes and numbers; measured in the mode it is in,
            and without compilation.
        batch: As its data loader gives it. For a model with a training step of its own, whatever
            that takes; otherwise inputs, or ``(inputs, targets)``. Inputs that are a tuple become
            several arguments, those of a dict go by name where the names fit.
        loss: Called with the output, and with the targets where the batch has some; returns one
            number. ``None`` takes the model's ``training_step``, or else a loss that it returns
            under the name ``loss``, or else ``"random"``: a random gradient of unit variance at
            the output.
        seed: Of weights that are drawn, dropout and a random gradient; in ``[0, 2**32 - 1]``.

    Returns:
        The numbers, and a verdict in words. `print` it.

    Raises:
        TypeError: ``model`` is no module, or ``loss`` or ``seed`` is of no use.
        ValueError: ``seed`` is out of range; the model is lazy, on the meta device or of
            TorchScript; it has no weight matrix; it optimizes by hand and there is no ``loss``; or
            the batch has too many parts.
        ShardedGradientError: Its parameters are split over ranks.
        GradGuardError: The model, its training step or the loss raised, no gradient can flow, or
            no layer with a weight matrix was called.

    Cost:
        Five forward and backward passes; memory for one, and a second copy of all weights. QR
        decompositions of all weight matrices, twice.

    State:
        Parameters, buffers, gradients, modes, hooks, attributes of modules and what lies in their
        lists and dicts, and all global random states are as before, also after an error. What the
        model's own code does elsewhere, such as in files, is done.

    Distributed:
        Makes no collective; a rank may call it alone, unless the model's own forward makes some.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> hidden = [part for _ in range(10) for part in (nn.Linear(64, 64), nn.ReLU())]
        >>> model = nn.Sequential(*hidden, nn.Linear(64, 10))
        >>> result = preflight(model, torch.randn(128, 64))
        >>> result.status, round(result.forward_decades_per_layer, 1)
        ('shrinks', -0.4)
        >>> result.keepers[0].initialisation
        'He'

    Source:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", 2010; He et al., "Delving deep into rectifiers", 2015,
        https://arxiv.org/abs/1502.01852.
    """
    check_arguments(model, loss, seed)
    model = without_wrappers(model)
    check_parameters(model)
    with untouched(model), torch.inference_mode(mode=False), torch.enable_grad():
        notes = eager(model)
        silent(model)
        layers = matrix_layers(model)
        if not layers:
            msg = (
                "`preflight` needs a model with a weight matrix, got "
                f"{type(model).__name__} without one. A model that makes its layers later must "
                "have made them."
            )
            raise ValueError(msg)
        device = next(model.parameters()).device
        task = make_task(model, batch, loss, layers, device)
        return _measured(task, seed, notes)


def _measured(task: Task, seed: int, notes: list[str]) -> Preflight:
    layers, ending = _run(task, {}, seed)
    given = Signal(initialisation="as given", layers=layers)
    if not given.layers:
        msg = (
            f"`preflight` needs layers that are called as modules, got {type(task.model).__name__}"
            f", which called none of its {len(task.layers)}. Call `layer(x)`, not "
            "`layer.forward(x)`, and give a batch that is not empty."
        )
        raise GradGuardError(msg)
    alternatives = []
    for name, how in INITIALISATIONS.items():
        weights = _redrawn(task.model, task.layers, how, seed)
        if not weights:
            continue
        try:
            layers, _ = _run(task, weights, seed)
        except GradGuardError as error:
            notes.append(f"not measured with {name} initialisation: {str(error).rstrip('.')}")
        else:
            alternatives.append(Signal(initialisation=name, layers=layers))
    return Preflight(
        given=given,
        alternatives=tuple(alternatives),
        ending=ending,
        seed=seed,
        notes=(*notes, *notes_on(task.model, task.layers, given)),
        zero_layers=tuple(zero_layers(task.layers)),
    )


def _run(
    task: Task, weights: Mapping[str, Tensor], seed: int
) -> tuple[tuple[LayerSignal, ...], Ending]:
    devices = dict.fromkeys(parameter.device for parameter in task.model.parameters())
    with seeded(seed, devices), _without_advice():
        return task.run(weights)


def _redrawn(model: nn.Module, layers: Layers, how: Draw, seed: int) -> dict[str, Tensor]:
    """Return other weight matrices by name, but for embeddings and what is tied to them."""
    generator = torch.Generator().manual_seed(seed)
    members = {id(module): role for module, role in layers.values()}
    kept = {
        id(parameter)
        for module, role in layers.values()
        if role in LEFT_OUT
        for parameter in module.parameters(recurse=False)
    }
    return {
        f"{prefix}.{name}".removeprefix("."): draw(module, name, parameter, how, generator)
        for prefix, module in model.named_modules()
        if id(module) in members
        for name, parameter in module.named_parameters(recurse=False)
        if can_be_drawn(module, parameter) and id(parameter) not in kept
    }


@contextmanager
def _without_advice() -> Iterator[None]:
    """Leave out cuDNN's wish that a recurrent layer's weights lie in one block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="RNN module weights are not part of")
        yield
