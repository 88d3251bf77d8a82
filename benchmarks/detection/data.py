"""Small data sets for labelled trainings, made once per process.

In: nothing; scikit-learn's own files, the standard library's own sources, and arithmetic. Out:
tensors, already split in two. Nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import sklearn.datasets
import torch
from torch import Tensor

__all__ = ["Split", "digits", "table", "text"]

Split = tuple[Tensor, Tensor, Tensor, Tensor]
"""Training inputs and targets, then held-out inputs and targets."""


@lru_cache(maxsize=1)
def digits() -> Split:
    """Return images ``(n, 1, 8, 8)`` of mean 0 and deviation 1, and classes 0 to 9."""
    bunch = sklearn.datasets.load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1)
    images = (images - images.mean()) / images.std()
    return _split(images, torch.tensor(bunch.target))


@lru_cache(maxsize=4)
def table(name: str) -> Split:
    """Return a table with standardised columns: ``"wine"``, ``"breast_cancer"``, ``"iris"``.

    ``"diabetes"`` has one standardised number as its target, ``(n, 1)``; the others have classes.
    """
    bunch = getattr(sklearn.datasets, f"load_{name}")()
    inputs = torch.tensor(bunch.data, dtype=torch.float32)
    inputs = (inputs - inputs.mean(dim=0)) / inputs.std(dim=0)
    targets = torch.tensor(bunch.target)
    if name == "diabetes":
        targets = targets.float().unsqueeze(1)
        targets = (targets - targets.mean()) / targets.std()
    return _split(inputs, targets)


@lru_cache(maxsize=1)
def text() -> Tensor:
    """Return some 43,000 characters of English with formulas, as numbers below 128."""
    folder = Path(sklearn.datasets.__file__).parent / "descr"
    pages = "".join(path.read_text("utf-8", "ignore") for path in sorted(folder.glob("*.rst")))
    ascii_only = [ord(c) for c in pages if ord(c) < 128]
    return torch.tensor(ascii_only[:100_000])


def _split(inputs: Tensor, targets: Tensor) -> Split:
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    cut = len(order) * 4 // 5
    kept, held_out = order[:cut], order[cut:]
    return inputs[kept], targets[kept], inputs[held_out], targets[held_out]
