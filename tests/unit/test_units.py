"""Which units get no gradient at all, held to numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gradguard import Probe
from lightning_gradguard.scope import Scope
from lightning_gradguard.units import UnitTensor, silent_units

LAYERS = {
    "linear": lambda: nn.Linear(50, 12),
    "wide linear": lambda: nn.Linear(1000, 12),
    "narrow linear": lambda: nn.Linear(1, 12),
    "convolution": lambda: nn.Conv2d(5, 12, 3),
    "grouped convolution": lambda: nn.Conv2d(12, 12, 3, groups=4),
    "depthwise convolution": lambda: nn.Conv1d(12, 12, 3, groups=12),
    "transposed convolution": lambda: nn.ConvTranspose2d(5, 12, 3),
}


def masks_of(layer, gradient):
    """Return the mask of a layer whose weight has a gradient, and the rows that numpy sees."""
    (watched,) = [t for t in Scope.of(nn.Sequential(layer)).tensors if t.name == "0.weight"]
    units = [UnitTensor(watched.layer, 0, watched.unit_dim)]
    mask = np.asarray(silent_units(units, [gradient])["0"])
    rows = np.moveaxis(gradient.detach().numpy(), watched.unit_dim, 0)
    return mask, rows.reshape(12, -1)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("memory", ["plain", "channels last", "scattered"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("backend")
def test_a_unit_is_silent_if_all_of_its_row_is_zero(make, memory, dtype) -> None:
    layer = make()
    gradient = torch.randn_like(layer.weight).detach()
    unit_dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    rows = gradient.movedim(unit_dim, 0)
    rows[[0, 5, 11]] = 0.0
    rows[7] = -0.0
    rows[3].flatten()[:-1].zero_()
    if memory == "channels last" and gradient.dim() == 4:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    if memory == "scattered":
        gradient = torch.stack([gradient, torch.ones_like(gradient)], dim=-1)[..., 0]
    mask, expected = masks_of(layer, gradient)
    if dtype is torch.bfloat16:
        half = gradient.to(dtype)
        np.testing.assert_array_equal(
            np.asarray(silent_units([UnitTensor("0", 0, unit_dim)], [half])["0"]), mask
        )
    np.testing.assert_array_equal(mask, ~expected.any(axis=1))
    assert mask[[0, 5, 7, 11]].all()


@pytest.mark.parametrize("place", [0, 1, 16, 17, 500, 998, 999])
@pytest.mark.usefixtures("backend")
def test_a_single_number_anywhere_in_a_row_is_enough(place) -> None:
    gradient = torch.zeros(12, 1000)
    gradient[4, place] = 1e-30
    mask, _ = masks_of(nn.Linear(1000, 12), gradient)
    assert np.flatnonzero(~mask).tolist() == [4]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_no_silence(value) -> None:
    gradient = torch.zeros(12, 50)
    gradient[4, 20] = value
    assert np.flatnonzero(~masks_of(nn.Linear(50, 12), gradient)[0]).tolist() == [4]


def test_sparse_and_empty_gradients_have_no_mask() -> None:
    units = [UnitTensor(name, column, 0) for column, name in enumerate("abc")]
    gradients = [torch.eye(3).to_sparse(), torch.zeros(3, 0), torch.eye(3)]
    masks = silent_units(units, gradients)
    assert {name: mask.tolist() for name, mask in masks.items()} == {"c": [False] * 3}


def test_gradients_are_left_as_they_are() -> None:
    gradient = torch.randn(12, 50)
    gradient[2] = 0.0
    before = gradient.clone()
    silent_units([UnitTensor("fc", 0, 0)], [gradient])
    assert torch.equal(gradient, before)


def net() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].weight.abs_()
        model[0].bias.fill_(1.0)
        model[0].bias[2] = -100.0
    return model


@pytest.mark.usefixtures("backend")
def test_a_unit_that_is_dead_by_its_bias_is_seen_through_the_probe() -> None:
    model = net()
    probe = Probe(model)
    model(torch.rand(8, 4)).square().sum().backward()
    silent = probe.read(step=0).silent_units
    assert {name: np.flatnonzero(mask).tolist() for name, mask in silent.items()} == {
        "0": [2],
        "2": [],
    }
    assert all(mask.dtype == np.bool_ for mask in silent.values())


def test_each_layer_keeps_its_own_mask_beside_other_modules() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), *net())
    probe = Probe(model)
    model(torch.arange(6)).square().sum().backward()
    model[2].weight.grad[4] = 0.0
    silent = probe.read(step=0).silent_units
    assert {name: np.flatnonzero(mask).tolist() for name, mask in silent.items()} == {
        "2": [2, 4],
        "4": [],
    }
