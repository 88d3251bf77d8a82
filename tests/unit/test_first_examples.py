"""The two worked networks give the gradients that the chain rule gives on paper.

Expected values come from ``math`` alone; both autograd and the frame must give them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from examples.reference.first_examples import (
    WorkedExample,
    decades_lost,
    decades_lost_per_layer,
    insurance_network,
    sigmoid_chain,
)
from lightning_gradguard import Probe

if TYPE_CHECKING:
    from collections.abc import Sequence


def slope(z: float) -> float:
    """Return the derivative of the sigmoid at ``z``."""
    value = 1.0 / (1.0 + math.exp(-z))
    return value * (1.0 - value)


def chain_gradients(weights: Sequence[float], x: float) -> list[float]:
    """Return dL/dwk of the sigmoid chain: what entered layer k, times every factor from k on."""
    entered, slopes = [x], []
    for weight in weights:
        z = weight * entered[-1]
        slopes.append(slope(z))
        entered.append(1.0 / (1.0 + math.exp(-z)))
    return [
        entered[k] * math.prod(slopes[k:]) * math.prod(weights[k + 1 :])
        for k in range(len(weights))
    ]


def insurance_gradients() -> dict[str, list[float]]:
    """Return the gradients per layer, weights first; z1 = z2 = 0, so both slopes are 0.25."""
    age, education, income, savings = 0.12, 0.5, 0.4, 0.2
    awareness = buys = 0.5
    error, w8 = buys - 0.0, 0.4
    d2 = error * 0.25 * w8
    return {
        "awareness": [0.25 * person * d2 for person in (age, education, income, savings)],
        "buys": [error * 0.25 * awareness, error * 0.25],
    }


def layer_gradients(example: WorkedExample) -> dict[str, list[float]]:
    """Return the gradients that autograd gives, per layer in forward order."""
    example.backward()
    layers: dict[str, list[float]] = {}
    for name, parameter in example.network.named_parameters():
        assert parameter.grad is not None
        layers.setdefault(name.split(".")[0], []).extend(parameter.grad.flatten().tolist())
    return layers


def layer_norms(gradients: dict[str, list[float]]) -> list[float]:
    """Return the L2 norm per layer in forward order, as a frame's ``grad_norm`` has it."""
    return [math.hypot(*values) for values in gradients.values()]


@pytest.mark.parametrize(
    ("weights", "x"),
    [
        ((1.0, 1.0, 1.0, 1.0, 1.0), 1.0),
        ((0.5, -2.0, 3.0, 0.1, 4.0), -1.5),
        ((8.0, 8.0, 8.0, 8.0, 8.0), 1.0),
    ],
    ids=["as in the text", "mixed signs", "saturated"],
)
def test_chain_gradients_are_products_of_weights_and_slopes(
    weights: tuple[float, ...], x: float
) -> None:
    found = layer_gradients(sigmoid_chain(weights, x))
    assert list(found) == ["w1", "w2", "w3", "w4", "w5"]
    expected = [abs(gradient) for gradient in chain_gradients(weights, x)]
    assert layer_norms(found) == pytest.approx(expected, rel=1e-12)


def test_the_frame_of_the_chain_is_what_the_chain_rule_gives() -> None:
    example = sigmoid_chain()
    probe = Probe(example.network)
    example.backward()
    frame = probe.read(step=0)
    expected = [abs(gradient) for gradient in chain_gradients([1.0] * 5, 1.0)]
    assert frame.layers == ("w1", "w2", "w3", "w4", "w5")
    assert frame.grad_norm.tolist() == pytest.approx(expected, rel=1e-12)
    # One entry per layer, so norm, root mean square and largest entry are the same number.
    assert frame.grad_rms.tolist() == pytest.approx(expected, rel=1e-12)
    assert frame.grad_abs_max.tolist() == pytest.approx(expected, rel=1e-12)
    assert frame.global_grad_norm == pytest.approx(math.hypot(*expected), rel=1e-12)
    assert frame.param_norm.tolist() == [1.0] * 5


def test_the_frame_of_the_insurance_network_is_what_was_worked_on_paper() -> None:
    example = insurance_network()
    probe = Probe(example.network)
    example.backward()
    frame = probe.read(step=0)
    assert frame.layers == ("awareness", "buys")
    assert frame.grad_norm.tolist() == pytest.approx(layer_norms(insurance_gradients()), rel=1e-12)
    # dL/dw1 .. dL/dw4 = 0.0015, 0.00625, 0.005, 0.0025, worked in the docstring.
    on_paper = math.hypot(0.0015, 0.00625, 0.005, 0.0025)
    assert frame.weight_grad_norm[0] == pytest.approx(on_paper, rel=1e-12)


def test_chain_gives_the_table_of_the_docstring() -> None:
    found = layer_gradients(sigmoid_chain())
    table = {"w1": 0.000486, "w2": 0.001808, "w3": 0.007609, "w4": 0.033411, "w5": 0.148233}
    assert found == {name: [pytest.approx(value, abs=5e-7)] for name, value in table.items()}


def test_first_weight_of_the_insurance_network_gets_the_product_of_d1_and_d2() -> None:
    found = layer_gradients(insurance_network())
    assert found["awareness"][0] == pytest.approx(0.03 * 0.05, rel=1e-12)
    assert found["awareness"][0] == pytest.approx(0.0015, rel=1e-12)
    assert found["buys"][0] == pytest.approx(0.0625, rel=1e-12)


def test_insurance_gradients_and_layer_norms_are_those_worked_on_paper() -> None:
    found = layer_gradients(insurance_network())
    expected = insurance_gradients()
    assert list(found) == ["awareness", "buys"]
    for layer, values in expected.items():
        assert found[layer] == pytest.approx(values, rel=1e-12)
    assert layer_norms(found) == pytest.approx(layer_norms(expected), rel=1e-12)


def test_one_step_hardly_moves_the_first_weight() -> None:
    example = insurance_network()
    example.backward()
    torch.optim.SGD(example.network.parameters(), lr=0.1).step()
    moved = dict(example.network.named_parameters())
    assert moved["awareness.weight"][0, 0].item() == pytest.approx(0.49985, rel=1e-12)
    assert moved["buys.weight"][0, 0].item() == pytest.approx(0.39375, rel=1e-12)


def test_sigmoid_depth_costs_decades_and_tanh_with_xavier_does_not() -> None:
    for seed in range(3):
        # A slope of at most 0.25 costs log10(4) = 0.6 per layer before the weights have their say.
        assert decades_lost_per_layer(10, "sigmoid", "default", seed) > math.log10(4)
        assert abs(decades_lost(10, "tanh", "xavier", seed)) < 0.5
        assert decades_lost(20, "relu", "default", seed) > 3.0
        assert abs(decades_lost(20, "relu", "he", seed)) < 1.0


def test_measuring_depth_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    first = decades_lost(3, "relu", "he", seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert decades_lost(3, "relu", "he", seed=7) == first
