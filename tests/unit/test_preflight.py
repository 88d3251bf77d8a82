"""What the initialisation check measures, against arithmetic and autograd."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_gradguard import Preflight, preflight
from lightning_gradguard.initialisation.draws import INITIALISATIONS, draw, fans
from lightning_gradguard.initialisation.recorder import root_mean_square, spread
from tests.stacks import he, stack

WIDTH = 256


def normal(rows: int, columns: int, scale: float) -> nn.Linear:
    """Return a layer whose weights have variance scale² / inputs, without a bias."""
    layer = nn.Linear(columns, rows, bias=False)
    nn.init.normal_(layer.weight, std=scale / math.sqrt(columns))
    return layer


def keepers(result: Preflight) -> set[str]:
    return {signal.initialisation for signal in result.keepers}


# --- the numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.6])
def test_linear_layers_multiply_the_variance_by_that_of_their_weights(scale):
    # Each output adds up n products of variance s²/n each: the variance goes times s², the root
    # mean square times s, and so does the gradient on its way back, as the layers are square.
    model = nn.Sequential(*(normal(WIDTH, WIDTH, scale) for _ in range(12)))
    result = preflight(model, torch.randn(512, WIDTH))
    assert result.forward_decades_per_layer == pytest.approx(math.log10(scale), abs=0.01)
    assert result.backward_decades_per_layer == pytest.approx(math.log10(scale), abs=0.01)
    assert math.log10(result.forward_ratio) == pytest.approx(11 * math.log10(scale), abs=0.1)
    assert math.log10(result.backward_ratio) == pytest.approx(11 * math.log10(scale), abs=0.1)


def test_relu_halves_the_square_so_that_default_weights_lose_a_sixth_of_it_per_layer():
    # PyTorch draws from U(-1/√n, 1/√n): variance 1/(3n). ReLU halves the mean square: 1/6 a layer.
    result = preflight(stack(20, width=WIDTH), torch.randn(256, WIDTH))
    assert result.forward_decades_per_layer == pytest.approx(0.5 * math.log10(1 / 6), abs=0.02)
    assert result.backward_decades_per_layer == pytest.approx(0.5 * math.log10(1 / 6), abs=0.02)


@pytest.mark.parametrize("inplace", [False, True])
def test_every_number_is_that_of_autograd_by_hand(inplace):
    model = nn.Sequential(
        nn.Linear(5, 7), nn.ReLU(inplace=inplace), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)
    ).double()
    inputs, targets = torch.randn(9, 5, dtype=torch.float64), torch.randint(3, (9,))
    result = preflight(model, (inputs, targets), loss=functional.cross_entropy)

    outputs = [model[0](inputs)]
    outputs.append(model[2](torch.relu(outputs[0])))
    outputs.append(model[4](torch.tanh(outputs[1])))
    gradients = torch.autograd.grad(functional.cross_entropy(outputs[2], targets), outputs)
    for layer, output, gradient in zip(result.layers, outputs, gradients, strict=True):
        assert layer.forward_rms == pytest.approx(output.square().mean().sqrt().item(), rel=1e-12)
        assert layer.forward_std == pytest.approx(output.var(dim=0).mean().sqrt().item(), rel=1e-12)
        assert layer.backward_rms == pytest.approx(
            gradient.square().mean().sqrt().item(), rel=1e-12
        )
    assert [layer.name for layer in result.layers] == ["0", "2", "4"]
    assert {layer.kind for layer in result.layers} == {"Linear"}
    assert result.ending == "loss"


def test_a_layer_called_twice_is_one_row_with_the_mean_of_both_squares():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return self.inner(self.inner(x))

    model, inputs = Twice(), torch.randn(8, 4)
    (layer,) = preflight(model, inputs).layers
    first = model.inner(inputs)
    both = torch.cat([first, model.inner(first)])
    assert layer.calls == 2
    assert layer.forward_rms == pytest.approx(both.square().mean().sqrt().item(), rel=1e-6)


def test_the_order_is_that_of_the_calls():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.first(x))

    assert [layer.name for layer in preflight(Backwards(), torch.ones(2, 4)).layers] == [
        "first",
        "last",
    ]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_squares_neither_vanish_nor_overflow(scale):
    values = torch.randn(100)
    exact = values.double().square().mean().sqrt().item()
    assert root_mean_square(scale * values).item() == pytest.approx(scale * exact, rel=1e-5)


def test_half_precision_is_added_up_in_float32():
    values = torch.full((70_000,), 60.0, dtype=torch.float16)  # the squares sum to 252 million
    assert root_mean_square(values).item() == pytest.approx(60.0)
    model = stack(4, width=16).to(torch.bfloat16)
    result = preflight(model, torch.randn(32, 16, dtype=torch.bfloat16))
    assert all(layer.forward_rms > 0.0 < layer.backward_rms for layer in result.layers)


def test_the_signal_is_what_differs_between_examples_not_what_biases_add():
    values = torch.randn(64, 8) + 1000.0
    assert spread(values).item() == pytest.approx(values.var(dim=0).mean().sqrt().item(), rel=1e-3)
    assert spread(torch.full((4, 3), 7.0)).item() == 0.0
    assert math.isnan(spread(torch.ones(1, 3)).item())


def test_zero_and_broken_values_are_told_as_they_are():
    assert root_mean_square(torch.zeros(3)).item() == 0.0
    assert math.isinf(root_mean_square(torch.tensor([1.0, math.inf])).item())
    assert math.isnan(root_mean_square(torch.tensor([1.0, math.nan])).item())


# --- other initialisations -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(300, 200), (200, 300)),
        (nn.Conv2d(32, 64, 3), (64, 32, 3, 3)),
        (nn.Conv1d(64, 32, 5), (32, 64, 5)),
    ],
)
def test_xavier_and_he_have_the_spread_of_torchs_own(module, shape):
    weight, generator = torch.empty(shape), torch.Generator().manual_seed(0)
    expected = {
        "Xavier": nn.init.xavier_normal_(torch.empty(shape)),
        "He": nn.init.kaiming_normal_(torch.empty(shape), nonlinearity="relu"),
    }
    for name, torchs in expected.items():
        drawn = draw(module, "weight", weight, INITIALISATIONS[name], generator)
        assert drawn.std().item() == pytest.approx(torchs.std().item(), rel=0.03)
        assert drawn.shape == weight.shape


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5)])
def test_orthogonal_rows_or_columns_have_length_one(shape):
    layer = nn.Linear(*shape[::-1])
    generator = torch.Generator().manual_seed(0)
    drawn = draw(layer, "weight", layer.weight, INITIALISATIONS["orthogonal"], generator)
    product = drawn @ drawn.t() if shape[0] <= shape[1] else drawn.t() @ drawn
    assert torch.allclose(product, torch.eye(min(shape)), atol=1e-5)


@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM(8, 8), 4), (nn.GRU(8, 8), 3)])
def test_recurrent_gates_are_drawn_one_by_one(layer, gates):
    generator = torch.Generator().manual_seed(0)
    how = INITIALISATIONS["orthogonal"]
    drawn = draw(layer, "weight_hh_l0", layer.weight_hh_l0, how, generator)
    for gate in drawn.chunk(gates):
        assert torch.allclose(gate @ gate.t(), torch.eye(8), atol=1e-5)


def test_projections_of_attention_are_drawn_one_by_one():
    layer, generator = nn.MultiheadAttention(8, 2), torch.Generator().manual_seed(0)
    how = INITIALISATIONS["orthogonal"]
    for part in draw(layer, "in_proj_weight", layer.in_proj_weight, how, generator).chunk(3):
        assert torch.allclose(part @ part.t(), torch.eye(8), atol=1e-5)


def test_fans_of_grouped_strided_and_transposed_convolutions():
    # 4 channels into each of 8 outputs; a stride of 2 lets an input reach a quarter of the places.
    assert fans(nn.Conv2d(4, 8, 3, stride=2), torch.empty(8, 4, 3, 3)) == (36.0, 18.0)
    # Turned around: 4 × 16 products at 2 × 2 strides, so a quarter of them at each output.
    assert fans(nn.ConvTranspose2d(4, 8, 4, stride=2), torch.empty(4, 8, 4, 4)) == (16.0, 128.0)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular", groups=64, bias=False),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular", groups=2, bias=False),
        nn.ConvTranspose2d(64, 64, 2, stride=2, bias=False),
    ],
)
@pytest.mark.parametrize("name", ["Xavier", "orthogonal"])
def test_a_drawn_convolution_keeps_the_signal_of_noise(module, name):
    weight = draw(
        module, "weight", module.weight, INITIALISATIONS[name], torch.Generator().manual_seed(0)
    )
    output = torch.func.functional_call(module, {"weight": weight}, (torch.randn(16, 64, 8, 8),))
    expected = 1.0
    if isinstance(module, nn.ConvTranspose2d):
        # Xavier meets both ways in the middle: 64 inputs to an output, 256 outputs to an input.
        # Of an orthogonal matrix of 64 rows and 256 columns each output sees a column's 64.
        expected = math.sqrt(2 * 64 / (64 + 256)) if name == "Xavier" else 0.5
    assert output.std().item() == pytest.approx(expected, rel=0.1)


def test_he_keeps_relu_over_thirty_layers_where_the_default_shrinks_it():
    inputs = torch.randn(128, 64)
    default, drawn = preflight(stack(30), inputs), preflight(stack(30, initialise=he), inputs)
    assert (default.status, drawn.status) == ("shrinks", "kept")
    assert default.forward_decades_per_layer < -0.35
    assert abs(drawn.given.forward_decades) < 1.0 > abs(drawn.given.backward_decades)
    assert "He" in keepers(default)
    assert keepers(default).isdisjoint({"Xavier", "orthogonal"})
    assert "He" in default.verdict
    assert "would keep it" in default.verdict


def test_xavier_keeps_tanh_over_twenty_layers():
    result = preflight(stack(20, nn.Tanh), torch.randn(128, 64))
    assert result.status == "shrinks"
    assert "Xavier" in keepers(result)


@pytest.mark.parametrize(("gain", "status"), [(1.05, "kept"), (1.5, "grows")])
def test_a_signal_that_grows_is_a_fault_sooner_than_one_that_shrinks(gain, status):
    # 1.5 per layer, 12 layers: 2.1 decades; 1.05: 0.25.
    model = nn.Sequential(*(normal(128, 128, gain) for _ in range(13)))
    result = preflight(model, torch.randn(64, 128))
    assert result.status == status
    assert ("signal grows 0.18 decades per layer" in result.verdict) == (status == "grows")


@pytest.mark.parametrize("initialise", [None, nn.init.xavier_normal_, he])
def test_nothing_is_promised_to_a_deep_sigmoid(initialise):
    result = preflight(stack(10, nn.Sigmoid, initialise=initialise), torch.randn(128, 64))
    assert result.status == "shrinks"
    assert result.keepers == ()
    assert "would keep" not in str(result)
    assert "no initialisation that was measured keeps it" in result.verdict


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    model, inputs = nn.Sequential(stack(4), nn.Dropout()), torch.randn(8, 64)
    first, again, other = (preflight(model, inputs, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


# --- words ---------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [4, 40])
def test_the_table_fits_a_terminal(depth):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a_rather_long_name_of_a_part = stack(depth)

        def forward(self, x):
            return self.a_rather_long_name_of_a_part(x)

    text = str(preflight(Named().eval(), torch.randn(8, 64)))
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 60


def test_the_table_shows_every_layer_and_every_initialisation():
    text = str(preflight(stack(10, nn.Sigmoid), torch.randn(64, 64)))
    rows = [line.split()[0] for line in text.splitlines() if "Linear" in line]
    assert rows == [str(number) for number in range(0, 21, 2)]
    for name in ("as given", "Xavier", "He", "orthogonal", "orthogonal × √2"):
        assert any(line.startswith(f"  {name} ") for line in text.splitlines())


@pytest.mark.parametrize("word", ["solves", "prevents"])
def test_nothing_is_promised(word):
    assert word not in str(preflight(stack(10), torch.randn(8, 64)))


def test_the_record_is_plain_json():
    result = preflight(stack(4), torch.randn(8, 64))
    data = result.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["verdict"] == result.verdict
    assert data["layers"][0]["forward_rms"] == result.layers[0].forward_rms
    assert len(data["alternatives"]) == 4
