"""What activation functions put out: which were called, where, and what is told of them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from lightning_gradguard import schema
from lightning_gradguard.inside.activations import Activations
from lightning_gradguard.inside.functions import look_at


class Block(nn.Module):
    """Calls functions itself, and a module twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 6)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        x = torch.sigmoid(self.fc(self.act(x).mean(dim=(2, 3))))
        return x.tanh()


def watched(model, *inputs):
    activations = Activations(model)
    activations.arm()
    model(*inputs)
    return activations.take()


def test_modules_and_functions_are_attributed_to_who_called_them_and_to_whose_units_these_are():
    found = watched(nn.Sequential(Block(), nn.Softmax(-1)), torch.randn(3, 2, 5, 5))
    assert [(s.function, s.module, s.call, s.layer) for s in found] == [
        ("relu", "0.act", 0, "0.conv"),
        ("relu", "0.act", 1, "0.conv"),
        ("sigmoid", "0", 0, "0.fc"),
        ("tanh", "0", 0, "0.fc"),
        ("softmax", "1", 0, "0.fc"),
    ]


CALLS = {
    "relu": [torch.relu, F.relu, torch.Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True)],
    "tanh": [torch.tanh, F.tanh, torch.Tensor.tanh, nn.Tanh(), torch.tanh_],
    "sigmoid": [torch.sigmoid, F.sigmoid, torch.Tensor.sigmoid, nn.Sigmoid()],
    "gelu": [F.gelu, nn.GELU()],
    "leaky_relu": [F.leaky_relu, nn.LeakyReLU()],
    "silu": [F.silu, nn.SiLU()],
    "elu": [F.elu, nn.ELU()],
    "selu": [F.selu, nn.SELU()],
    "celu": [F.celu, nn.CELU()],
    "relu6": [F.relu6, nn.ReLU6()],
    "hardtanh": [F.hardtanh, nn.Hardtanh()],
    "hardswish": [F.hardswish, nn.Hardswish()],
    "hardsigmoid": [F.hardsigmoid, nn.Hardsigmoid()],
    "softplus": [F.softplus, nn.Softplus()],
    "mish": [F.mish, nn.Mish()],
    "prelu": [nn.PReLU()],
    "rrelu": [F.rrelu, nn.RReLU()],
    "softmax": [lambda x: x.softmax(-1), lambda x: F.softmax(x, -1), nn.Softmax(-1)],
}


@pytest.mark.parametrize(
    ("name", "call"), [(name, call) for name, calls in CALLS.items() for call in calls]
)
def test_each_way_to_call_a_function_is_known(name, call):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 3)
            self.call = call

        def forward(self, x):
            return self.call(self.fc(x))

    assert [site.function for site in watched(Net(), torch.ones(4, 2))] == [name]


@pytest.mark.parametrize(
    ("model", "shape", "units"),
    [
        (nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU()), (4, 2, 9), 5),
        (nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU()), (4, 2, 9, 9), 5),
        (nn.Sequential(nn.Conv2d(2, 5, 3), nn.Dropout2d(0.5), nn.ReLU()), (4, 2, 9, 9), 5),
        (nn.Sequential(nn.Linear(2, 5), nn.ReLU()), (4, 2), 5),
        (nn.Sequential(nn.Linear(2, 5), nn.LayerNorm(5), nn.ReLU()), (4, 7, 2), 5),
        (nn.Sequential(nn.Linear(2, 5), nn.ReLU()), (4, 7, 7, 2), 5),
    ],
)
def test_units_are_channels_or_features(model, shape, units):
    (numbers,) = watched(model, torch.randn(shape)).values()
    assert numbers["active"].shape == (units,)


def test_which_units_were_active_is_what_numpy_says():
    torch.manual_seed(0)
    output = torch.relu(torch.randn(3, 6, 4) - 1.5)
    numbers = look_at("relu", output, 1)
    expected = (output.numpy() != 0).any(axis=(0, 2))
    assert not expected.all()
    np.testing.assert_array_equal(numbers["active"], expected)
    values = output.numpy().astype(np.float64)
    np.testing.assert_allclose(
        numbers["numbers"], [values.mean(), values.std(), (values == 0).mean()], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("function", "near"),
    [
        ("sigmoid", lambda x: (x <= 0.02) | (x >= 0.98)),
        ("tanh", lambda x: (x <= -0.98) | (x >= 0.98)),
    ],
)
def test_saturation_is_the_share_of_the_batch_near_a_flat_end(function, near):
    torch.manual_seed(0)
    output = getattr(torch, function)(6.0 * torch.randn(50, 7))
    saturated = look_at(function, output, 1)["saturated"]
    np.testing.assert_allclose(saturated, near(output.numpy()).mean(axis=0), rtol=1e-6)


def test_a_softmax_is_saturated_where_it_leaves_no_doubt():
    rows = torch.tensor([[0.99, 0.01], [0.6, 0.4], [0.0, 1.0], [0.5, 0.5]])
    assert look_at("softmax", rows, 1)["saturated"].tolist() == [0.5]


def test_a_histogram_counts_by_octave():
    output = torch.tensor([[0.0, 1.0, 1.5, 2.0, float("inf"), 2.0**-100]])
    histogram = look_at("relu", output, 1)["histogram"].tolist()
    one = schema.HISTOGRAM_FIRST - schema.HISTOGRAM_LOW
    assert (histogram[0], histogram[one], histogram[one + 1]) == (1.0, 2.0, 1.0)
    assert (histogram[schema.HISTOGRAM_FIRST - 1], histogram[-1]) == (1.0, 1.0)
    assert sum(histogram) == 6.0


def test_a_loop_is_looked_at_a_few_times():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            for _ in range(20):
                x = torch.tanh(self.fc(x))
            return x

    assert [site.call for site in watched(Loop(), torch.ones(1, 2))] == [0, 1, 2, 3]


def test_nothing_is_kept_no_hook_and_no_mode_stays():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    kept = []
    model[1].register_forward_hook(lambda *a: kept.append(weakref.ref(a[2])))
    before = [len(m._forward_hooks) for m in model.modules()]
    activations = Activations(model)
    activations.arm()
    model(torch.ones(1, 2)).sum().backward()
    activations.disarm()
    gc.collect()
    assert kept[0]() is None
    assert [len(m._forward_hooks) for m in model.modules()] == before
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert _get_current_function_mode_stack() == []


def test_a_model_that_raises_leaves_no_mode_behind():
    class Breaks(nn.Module):
        def forward(self, x):
            raise RuntimeError

    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(Breaks()))
    activations = Activations(model)
    activations.arm()
    with pytest.raises(RuntimeError):
        model(torch.ones(1, 2))
    assert _get_current_function_mode_stack() == []
    activations.disarm()


def test_what_is_recomputed_in_the_backward_pass_counts_once():
    class Saves(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

        def forward(self, x):
            return checkpoint(self.body, x, use_reentrant=False)

    model = Saves()
    activations = Activations(model)
    activations.arm()
    output = model(torch.ones(1, 2))
    activations.disarm()
    output.sum().backward()
    assert len(activations.take()) == 1


def test_validation_is_not_looked_at():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).eval()
    assert not watched(model, torch.ones(1, 2))
