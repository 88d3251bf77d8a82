"""Depth is the order of first calls, and nothing is left on the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.order import CallOrder
from lightning_gradguard.scope import ROOT


class Backwards(nn.Module):
    """Registers three layers and calls them the other way round, the middle one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.a(self.b(self.c(self.b(x))))


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def test_first_call_counts_not_registration_and_not_a_second_call() -> None:
    model = Backwards()
    order = CallOrder(model)
    model(torch.ones(1, 2))
    assert order.calls == {ROOT: 0, "b": 1, "c": 2, "a": 3}


def test_calls_in_eval_mode_do_not_count() -> None:
    model = Backwards()
    order = CallOrder(model)
    model.eval()(torch.ones(1, 2))
    assert order.calls == {}
    model.train()
    model.c.eval()
    model(torch.ones(1, 2))
    assert list(order.calls) == [ROOT, "b", "a"]


def test_no_hook_is_left_after_removal_and_removing_twice_is_harmless() -> None:
    model = Backwards()
    order = CallOrder(model)
    assert hooks_of(model) == 4
    order.remove()
    order.remove()
    assert hooks_of(model) == 0
    model(torch.ones(1, 2))
    assert order.calls == {}


def test_hooks_of_others_stay() -> None:
    model = Backwards()
    model.a.register_forward_pre_hook(lambda *_: None)
    CallOrder(model).remove()
    assert hooks_of(model) == 1


def test_only_the_wrapper_of_a_compiled_submodule_gets_a_hook() -> None:
    model = nn.Sequential(nn.Linear(2, 2), compiled(nn.Sequential(nn.Linear(2, 2))))
    order = CallOrder(model)
    assert [len(module._forward_pre_hooks) for module in model.modules()] == [1, 1, 1, 0, 0]
    assert order.compiled == ["1"]


def test_a_module_compiled_in_place_gets_no_hook() -> None:
    in_place = Backwards()
    in_place.compile(backend="eager")
    CallOrder(in_place)
    assert hooks_of(in_place) == 0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_watching_the_order_compiles_nothing_anew() -> None:
    model = nn.Sequential(nn.Linear(2, 2), compiled(nn.Sequential(nn.Linear(2, 2))))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    order = CallOrder(model)
    model(torch.ones(1, 2))
    order.remove()
    model(torch.ones(1, 2))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert order.calls == {"(root)": 0, "0": 1, "1": 2}


def test_a_name_that_only_starts_like_a_compiled_one_keeps_its_hook() -> None:
    model = nn.ModuleDict({"net": compiled(nn.Linear(2, 2)), "net2": nn.Linear(2, 2)})
    CallOrder(model)
    assert len(model["net2"]._forward_pre_hooks) == 1


def test_watching_leaves_outputs_bit_identical() -> None:
    model, x = Backwards(), torch.randn(4, 2)
    plain = model(x)
    CallOrder(model)
    assert torch.equal(model(x), plain)
