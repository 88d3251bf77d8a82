"""Between backward and the one copy, nothing asks the device for a number."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gradguard import GradientMonitor
from tests.e2e.models import Classifier, mlp, random_data, recurrent, trainer

WAITING_OPERATORS = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::bincount",
)
WAITING_METHODS = ("tolist", "numpy", "cpu", "__array__")


class WaitCounter(TorchDispatchMode):
    """Count what would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.waits = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().split(".")[0]
        if name in WAITING_OPERATORS:
            self.waits[name] += 1
        return function(*args, **(kwargs or {}))


def patched(counter, method):
    original = getattr(torch.Tensor, method)

    def counted(tensor, *args, **kwargs):
        counter.waits[method] += 1
        return original(tensor, *args, **kwargs)

    return mock.patch.object(torch.Tensor, method, counted)


def patched_to(counter):
    """Count copies to the host: on a CPU a copy of device or of dtype looks the same."""
    original = torch.Tensor.to

    def counted(tensor, *args, **kwargs):
        if "cpu" in map(str, args) or str(kwargs.get("device")) == "cpu":
            counter.waits["to"] += 1
        return original(tensor, *args, **kwargs)

    return mock.patch.object(torch.Tensor, "to", counted)


def waits(make_model, data, callbacks):
    pl.seed_everything(1, verbose=False)
    fit = trainer(*callbacks, max_epochs=1)
    counter = WaitCounter()
    with counter, patched_to(counter):
        stack = [patched(counter, method) for method in WAITING_METHODS]
        for patch in stack:
            patch.start()
        try:
            fit.fit(make_model(), data)
        finally:
            for patch in stack:
                patch.stop()
    return counter.waits


@pytest.mark.parametrize(
    ("network", "shape"),
    [(mlp, (64, 6)), (recurrent, (64, 12, 2))],
    ids=["mlp", "lstm with a profile over time"],
)
def test_a_watched_step_adds_the_one_copy_and_nothing_else(network, shape):
    data = random_data(*shape)

    def make_model():
        return Classifier(network(), torch.optim.SGD)

    monitor = GradientMonitor(sinks=[], on_error="raise")
    added = waits(make_model, data, [monitor]) - waits(make_model, data, [])
    steps = monitor.summary().observed_steps
    assert steps == 8
    # One copy a step: `.cpu()` and the view of its result as an array.
    assert added == {"cpu": steps, "numpy": steps}


def test_the_counter_does_see_a_wait():
    class Asks(pl.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            module.network[0].weight.grad.norm().item()

    data = random_data(64, 6)
    added = waits(lambda: Classifier(mlp()), data, [Asks()])
    added -= waits(lambda: Classifier(mlp()), data, [])
    assert added["aten::_local_scalar_dense"] == 8
