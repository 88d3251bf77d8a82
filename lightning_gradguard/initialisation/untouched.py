"""A model is as it was before, whatever was done to it in between.

In: a model. Out: nothing but that. Parameters and buffers are not the affair of this file: the run
is given others. What is kept here is all else that a forward pass may change.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["eager", "seeded", "silent", "untouched"]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put all attributes of all modules back at the end: modes, hooks, counters, lists.

    Args:
        model: Any module. What lies directly in a list, set or dict of a module is put back,
            too; what lies deeper is not known of.
    """
    kept = [(module, dict(vars(module))) for module in model.modules()]
    values = [value for _, had in kept for value in had.values()]
    contents = [_Content(value) for value in values if _holds(value)]
    generators = [(g, g.get_state()) for g in values if isinstance(g, torch.Generator)]
    try:
        copies: dict[int, Tensor] = {}
        for module, had in kept:
            vars(module).update({k: _copy(v, copies) for k, v in had.items() if _is_state(v)})
        yield
    finally:
        for module, had in kept:
            vars(module).clear()
            vars(module).update(had)
        for content in contents:
            content.put_back()
        for generator, state in generators:
            generator.set_state(state)


class _Content:
    """A container, and what was in it."""

    def __init__(self, container: Any) -> None:  # noqa: ANN401 - list, dict, set or deque
        self._container = container
        self._had = _parts(container)

    def put_back(self) -> None:
        container = self._container
        # One that must not be written to, such as a frozen dict, has not changed.
        if list(map(id, _flat(_parts(container)))) == list(map(id, _flat(self._had))):
            return
        container.clear()
        if isinstance(container, (list, deque)):
            container.extend(self._had)
        else:
            container.update(self._had)


def _parts(container: Any) -> list[Any]:  # noqa: ANN401
    return list(container.items() if isinstance(container, dict) else container)


def _flat(parts: Iterable[Any]) -> Iterator[Any]:
    """Yield keys and values, since the pairs of a dict are made anew each time."""
    for part in parts:
        yield from part if isinstance(part, tuple) else (part,)


def _holds(value: object) -> bool:
    return isinstance(value, (list, dict, set, deque))


def _is_state(value: object) -> bool:
    """Whether a tensor is an attribute that no graph leads to, such as a metric's sum."""
    return isinstance(value, Tensor) and not value.requires_grad


def _copy(tensor: Tensor, copies: dict[int, Tensor]) -> Tensor:
    return copies.setdefault(id(tensor), tensor.clone())


def eager(model: nn.Module) -> list[str]:
    """Let compiled modules run as written, until `untouched` ends; say so if there are any."""
    found = False
    for module in list(model.modules()):
        if vars(module).get("_compiled_call_impl") is not None:
            vars(module)["_compiled_call_impl"], found = None, True
        for name, child in module.named_children():
            if isinstance(inside := getattr(child, "_orig_mod", None), nn.Module):
                module._modules[name], found = inside, True  # noqa: SLF001 - no hook may see it
    return ["compiled modules were measured as written"] if found else []


def silent(model: nn.Module) -> None:
    """Let Lightning's modules log nowhere, as no trainer listens, until `untouched` ends."""
    for module in model.modules():
        if hasattr(type(module), "training_step"):
            vars(module).update(log=_log_nothing, log_dict=_log_nothing)


def _log_nothing(*_arguments: object, **_options: object) -> None:
    return None


@contextmanager
def seeded(seed: int, devices: Iterable[torch.device]) -> Iterator[None]:
    """Seed every source of random numbers, and put all of them back at the end.

    Args:
        seed: Between 0 and 2³² - 1, which is what numpy takes.
        devices: Where the model is; other devices are not even started.
    """
    # Not `torch.manual_seed`, which seeds devices that nobody here uses.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what users' code uses
    host = torch.get_rng_state()
    others = [(device, _device_state(device)) for device in devices if device.type != "cpu"]
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        for device, _ in others:
            _seed_device(device, seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(host)
        for device, state in others:
            _set_device_state(device, state)


def _device_state(device: torch.device) -> Tensor:
    state: Tensor = _generators(device).get_rng_state(*_index(device))
    return state


def _seed_device(device: torch.device, seed: int) -> None:
    if device.type == "mps":
        _generators(device).manual_seed(seed)
        return
    with _generators(device).device(device):
        _generators(device).manual_seed(seed)


def _set_device_state(device: torch.device, state: Tensor) -> None:
    _generators(device).set_rng_state(state, *_index(device))


def _index(device: torch.device) -> tuple[torch.device, ...]:
    """Return what names a device among those of its kind; there is one only of the kind mps."""
    return () if device.type == "mps" else (device,)


def _generators(device: torch.device) -> Any:  # noqa: ANN401 - a module such as torch.cuda
    return getattr(torch, device.type)
