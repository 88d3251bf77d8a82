"""What a callback's own code costs: the clock of the benchmarks.

In: callbacks about to train. Out: CPU seconds spent inside them, in the callback's own hooks, in
hooks that it put on modules, tensors and optimizers, and in what it made TensorBoard write. Each
second is counted once, and nothing of the package or of a peer is changed.
"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

import pytorch_lightning as pl
import torch
from tensorboard.summary.writer.event_file_writer import _AsyncWriter
from torch import nn

__all__ = ["OwnTime"]

_OWNERS: Final = ("lightning_gradguard", "benchmarks.peers", "wandb", "ignite")
"""Packages whose hooks are timed: torch and Lightning register hooks of their own."""

_REGISTER: Final[tuple[tuple[type, str], ...]] = (
    (nn.Module, "register_forward_hook"),
    (nn.Module, "register_forward_pre_hook"),
    (nn.Module, "register_full_backward_hook"),
    (nn.Module, "register_full_backward_pre_hook"),
    (torch.Tensor, "register_hook"),
    (torch.Tensor, "register_post_accumulate_grad_hook"),
    (torch.optim.Optimizer, "register_step_post_hook"),
    (torch.optim.Optimizer, "register_step_pre_hook"),
)


class OwnTime:
    """CPU seconds inside watched code; one lane at a time has the turn, so one sum is enough."""

    def __init__(self) -> None:
        self._seconds = self._collecting = self._collection_start = 0.0
        self._inside = False

    def take(self) -> tuple[float, float]:
        """Return the seconds since the last call, and those of them that collected garbage."""
        taken = self._seconds, self._collecting
        self._seconds = self._collecting = 0.0
        return taken

    def watch(self, callback: pl.Callback) -> None:
        """Time every hook of Lightning's that the callback implements."""
        for name in dir(pl.Callback):
            theirs, base = getattr(type(callback), name), getattr(pl.Callback, name)
            if name.startswith("on_") and theirs is not base:
                # An attribute of the object hides the method of its class.
                setattr(callback, name, self._timed(getattr(callback, name)))

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Time hooks that are registered from now on, and write event files at once.

        TensorBoard computes checksums, in Python, in a thread of its own. That thread takes
        the interpreter from training all the same, so here the caller does its work and pays.
        """
        with ExitStack() as stack:
            for owner, method in _REGISTER:
                register = self._register(getattr(owner, method))
                stack.enter_context(mock.patch.object(owner, method, register))
            stack.enter_context(mock.patch.object(_AsyncWriter, "write", _write_now))
            gc.callbacks.append(self._note_collection)
            stack.callback(gc.callbacks.remove, self._note_collection)
            yield

    def _note_collection(self, phase: str, _info: object) -> None:
        if phase == "start":
            self._collection_start = time.thread_time()
        elif self._inside:
            self._collecting += time.thread_time() - self._collection_start

    def _register(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def register(self_: object, hook: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the original
            if _module(hook).startswith(_OWNERS):
                hook = self._timed(hook)
            return original(self_, hook, *args, **kwargs)

        return register

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the original
            if self._inside:
                return function(*args, **kwargs)
            self._inside = True
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._seconds += time.thread_time() - start
                self._inside = False

        return timed


def _module(hook: Callable[..., Any]) -> str:
    inner = getattr(hook, "func", hook)
    return getattr(inner, "__module__", None) or type(inner).__module__


def _write_now(self: Any, bytestring: bytes) -> None:  # noqa: ANN401 - TensorBoard has no types
    self._writer.write(bytestring)
