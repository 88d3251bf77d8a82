"""The one copy from the device to the host.

In: named numbers, where they were measured. Out: the same as numpy arrays, later. What is on a
device is joined into one vector, whose copy runs while the device goes on; reading it a step
later costs no wait.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_gradguard import devices

__all__ = ["Transfer"]

Array = npt.NDArray[np.float64]


class Transfer:
    """Named numbers on their way to the host.

    Args:
        numbers: Arrays, and tensors of any shape, all of them on one device.

    Cost:
        One asynchronous copy; `arrive` waits only if it is not finished yet. None on the host.

    Example:
        >>> Transfer({"a": torch.ones(2), "b": torch.tensor(3.0)}).arrive()
        {'a': array([1., 1.]), 'b': array(3.)}
    """

    def __init__(self, numbers: Mapping[str, Tensor | Array]) -> None:
        self._names = tuple(numbers)
        self._here: dict[str, Array] = {}
        away: dict[str, Tensor] = {}
        for name, number in numbers.items():
            if not isinstance(number, Tensor):
                self._here[name] = number
            elif devices.is_host(number.device):
                self._here[name] = number.detach().to(torch.float64, copy=True).numpy()
            else:
                away[name] = number
        self._joined = _Joined(away) if away else None

    def arrive(self) -> dict[str, Array]:
        """Return the numbers, waiting for the copy if need be."""
        arrived = self._here if self._joined is None else self._here | self._joined.split()
        return {name: arrived[name] for name in self._names}


class _Joined:
    """Tensors of one device, as one vector whose copy is under way."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        widest = devices.widest_dtype(next(iter(tensors.values())).device)
        joined = torch.cat([t.detach().to(widest).reshape(-1) for t in tensors.values()])
        self._event: torch.cuda.Event | None = None
        if joined.device.type == "cuda":
            host = torch.empty(joined.shape, dtype=joined.dtype, pin_memory=True)
            self._host = host.copy_(joined, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own gap
            self._event.record(torch.cuda.current_stream(joined.device))
        else:
            self._host = joined

    def split(self) -> dict[str, Array]:
        """Wait for the copy and take it apart."""
        if self._event is not None:
            self._event.synchronize()
        numbers = self._host.cpu().numpy().astype(np.float64, copy=False)
        arrays, start = {}, 0
        for name, shape in self._shapes.items():
            size = int(np.prod(shape, dtype=np.int64))
            arrays[name] = numbers[start : start + size].reshape(shape)
            start += size
        return arrays
