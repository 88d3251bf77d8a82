"""How often a step waits for the device.

In: a training. Out: how many times it asks for a number, counted on a CPU by what would wait on a
GPU: operators whose result Python needs, and copies to the host. The same is counted for a test,
in ``tests/e2e/test_host_syncs.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytorch_lightning as pl
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.lanes import fit
from benchmarks.models import Subject
from lightning_gradguard import devices

__all__ = ["waits_per_step"]

_OPERATORS: Final = frozenset(
    ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::bincount")
)
_SHORT: Final = 2
_METHODS: Final = ("tolist", "numpy", "cpu", "__array__")


class WaitCounter(TorchDispatchMode):
    """Count operators that wait.

    Attributes:
        waits: How many there were.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator of torch
        types: object,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        """Count one operator, and run it."""
        self.waits += func.name().split(".")[0] in _OPERATORS
        return func(*args, **(kwargs or {}))

    def method(self, name: str) -> Callable[..., Any]:
        """Return a method of tensors that counts its calls."""
        original = getattr(torch.Tensor, name)

        def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self.waits += 1
            return original(tensor, *args, **kwargs)

        return counted

    def to(self) -> Callable[..., Any]:
        """Return ``Tensor.to`` that counts copies to the host."""
        original = torch.Tensor.to

        def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self.waits += "cpu" in map(str, args) or str(kwargs.get("device")) == "cpu"
            return original(tensor, *args, **kwargs)

        return counted


def waits_per_step(
    subject: Subject, callbacks: Callable[[Path], list[pl.Callback]], home: Path, steps: int
) -> float:
    """Return how often a step waits, without what a fit waits for once.

    Args:
        subject: The model; batches are small, and wait as often as large ones.
        callbacks: Makes callbacks, told the folder for what they write.
        home: That folder.
        steps: A short fit is compared with one that is so many steps longer.
    """
    longer = _waits(subject, callbacks(home), home, _SHORT + steps)
    return (longer - _waits(subject, callbacks(home), home, _SHORT)) / steps


def _waits(subject: Subject, callbacks: Sequence[pl.Callback], home: Path, steps: int) -> int:
    counter = WaitCounter()
    with ExitStack() as stack:
        stack.enter_context(counter)
        if hasattr(devices, "is_host"):
            # What lies on the host already is read there without waiting, and in another way.
            stack.enter_context(mock.patch.object(devices, "is_host", return_value=False))
        for name in _METHODS:
            method = counter.method(name)
            stack.enter_context(mock.patch.object(torch.Tensor, name, method))
        stack.enter_context(mock.patch.object(torch.Tensor, "to", counter.to()))
        fit(subject, callbacks, home, steps, batch_size=2)
    return counter.waits
