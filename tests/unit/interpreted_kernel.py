"""Run by test_kernel.py under TRITON_INTERPRET=1, which must be set before triton is imported."""

from __future__ import annotations

import itertools
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from lightning_gradguard.measure import device, foreach, kernel
from tests import oracles

NAMES = ("squares", "total", "abs_max", "nonfinite")
TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def random_tensors() -> list[torch.Tensor]:
    """Return sizes around those of a block and of a chunk, and layouts with and without gaps."""
    dtypes = itertools.cycle(TYPES)
    sizes = (1, 5, 1023, 1025, kernel._CHUNK, kernel._CHUNK + 1, 2 * kernel._CHUNK + 77)
    matrix = torch.randn(60, 90)
    image = torch.randn(3, 5, 7, 9).to(memory_format=torch.channels_last)
    strided = [matrix.t(), matrix[::2, 1::3], matrix[:, :1].expand(60, 90), image]
    values = [*map(torch.randn, sizes), *strided, torch.randn(3000)[::3]]
    return [value.to(dtype) for value, dtype in zip(values, dtypes, strict=False)]


def broken_tensors(dtype: torch.dtype) -> list[torch.Tensor]:
    """Return what float32 could not add up, and what is no number at all."""
    last = torch.ones(kernel._CHUNK + 1)
    last[-1] = float("nan")
    many = torch.randn(3000)
    many[::3], many[1::3] = float("-inf"), float("inf")
    values = [torch.full((3000,), 1e20), torch.full((3000,), 1e-25), -torch.zeros(9), last, many]
    return [value.to(dtype) for value in values]


def check(values: list[torch.Tensor]) -> None:
    """Compare with numpy, column by column."""
    found = kernel.read(values)
    assert found is not None
    for column, value in zip(found.T.tolist(), values, strict=True):
        numbers = oracles.entries(value)
        expected = oracles.statistics(numbers)
        terms = float(np.abs(numbers).sum())
        for name, number in zip(NAMES, column, strict=True):
            atol = 1e-13 * terms if name == "total" and np.isfinite(terms) else 0.0
            np.testing.assert_allclose(number, expected[name], rtol=1e-12, atol=atol, err_msg=name)


def main() -> None:
    """Check the kernel as it is, then with small chunks, which an interpreter can do in time."""
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # numpy's, of NaN
    torch.use_deterministic_algorithms(mode=True)
    assert kernel.is_usable(torch.device("cpu"), reference=foreach.read)
    kernel._CHUNK = 3000
    values = [*random_tensors(), *(value for dtype in TYPES for value in broken_tensors(dtype))]
    check(values)
    # Whoever reads large tensors on a device gets just this.
    few = values[:2]
    assert torch.equal(device.read_large(few), kernel.read(few))
    assert torch.equal(device.large_squares(few), kernel.read(few)[0])
    assert torch.isfinite(device.finite_sum(None, few))
    assert not torch.isfinite(device.finite_sum(None, [torch.tensor([float("nan")])]))


if __name__ == "__main__":
    main()
