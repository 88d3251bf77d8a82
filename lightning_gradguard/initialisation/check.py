"""The initialisation check: what depth does to the signal before the first step.

In: a model and a batch. Out: a `Preflight`. The model is left as it was.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from lightning_gradguard.initialisation.draws import INITIALISATIONS, Draw, draw
from lightning_gradguard.initialisation.passes import Loss, Task, make_task
from lightning_gradguard.initialisation.record import Signal
from lightning_gradguard.initialisation.recorder import matrix_layers
from lightning_gradguard.initialisation.untouched import seeded, untouched


def measure(model: nn.Module, batch: Any, *, loss: Loss = None, seed: int = 0) -> list[Signal]:
    layers = matrix_layers(model)
    device = next(model.parameters()).device
    task = make_task(model, batch, loss, layers, device)
    devices = {p.device for p in model.parameters()}
    out = []
    with untouched(model), torch.inference_mode(mode=False), torch.enable_grad():
        for name, how in {"as given": None, **INITIALISATIONS}.items():
            weights = {} if how is None else _redrawn(task, how, seed)
            with seeded(seed, devices):
                signals, ending = task.run(weights)
            out.append(Signal(initialisation=name, layers=signals))
    return out


def _redrawn(task: Task, how: Draw, seed: int):
    gen = torch.Generator().manual_seed(seed)
    owners = {id(m): r for m, r in task.layers.values()}
    res = {}
    for name, module in task.model.named_modules():
        if owners.get(id(module), "embedding") == "embedding":
            continue
        for pn, p in module.named_parameters(recurse=False):
            if p.dim() >= 2 and sum(s > 1 for s in p.shape) >= 2 or p.dim() == 2:
                res[f"{name}.{pn}" if name else pn] = draw(module, pn, p, how, gen)
    return res
