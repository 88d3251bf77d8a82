"""What the initialisation check measures, against arithmetic and autograd; and that it only looks."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from lightning_gradguard import Preflight, preflight
from lightning_gradguard.errors import GradGuardError
from lightning_gradguard.initialisation.draws import INITIALISATIONS, draw, fans
from lightning_gradguard.initialisation.recorder import root_mean_square, spread

WIDTH = 256


def normal(rows: int, columns: int, scale: float) -> nn.Linear:
    """Return a layer whose weights have variance scale² / inputs, without a bias."""
    layer = nn.Linear(columns, rows, bias=False)
    nn.init.normal_(layer.weight, std=scale / math.sqrt(columns))
    return layer


def stack(depth: int, activation=nn.ReLU, width: int = 64, initialise=None) -> nn.Sequential:
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), activation())]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    for layer in model:
        if initialise is not None and isinstance(layer, nn.Linear):
            initialise(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def he(weight):
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


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


def test_recurrent_gates_are_drawn_one_by_one():
    layer = nn.LSTM(8, 8)
    generator = torch.Generator().manual_seed(0)
    how = INITIALISATIONS["orthogonal"]
    drawn = draw(layer, "weight_hh_l0", layer.weight_hh_l0, how, generator)
    for gate in drawn.chunk(4):
        assert torch.allclose(gate @ gate.t(), torch.eye(8), atol=1e-5)


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
    assert "Xavier" not in keepers(default)
    assert "He" in default.verdict
    assert "would keep it" in default.verdict


def test_xavier_keeps_tanh_over_twenty_layers():
    result = preflight(stack(20, nn.Tanh), torch.randn(128, 64))
    assert result.status == "shrinks"
    assert "Xavier" in keepers(result)


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


# --- nothing is changed --------------------------------------------------------------------


class Busy(nn.Module):
    """Changes whatever a forward pass can change."""

    def __init__(self, *, raises: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.spectral = parametrizations.spectral_norm(nn.Linear(6, 6))
        self.old = torch.nn.Linear(6, 6)
        self.dropout = nn.Dropout(0.5)
        self.drop_again = nn.Dropout(0.2).eval()
        self.calls, self.seen, self.names = 0, [], {"a": 1}
        self.total = torch.zeros(3)
        self.generator = torch.Generator().manual_seed(5)
        self.raises = raises
        self.register_buffer("kept", torch.zeros(2))
        self.seen_by_hook = []
        self.old.register_forward_hook(lambda *_: self.seen_by_hook.append(1))

    def forward(self, x):
        self.calls += 1
        self.seen.append(self.calls)
        self.names["b"] = 2
        self.total += 1.0
        self.kept = self.kept + 1.0
        self.extra = object()
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand((), generator=self.generator)
        with torch.no_grad():
            self.old.weight.mul_(0.5)
        x.add_(1.0)
        self.train()
        x = self.old(self.spectral(self.dropout(self.norm(self.first(x)))))
        if self.raises:
            msg = "out of order"
            raise RuntimeError(msg)
        return x


def state_of(model: nn.Module) -> dict:
    """Return everything about a model and the random numbers, as bytes and identities."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    return {
        "tensors": {k: (id(v), v.numpy().tobytes()) for k, v in model.state_dict(keep_vars=True).items() for v in [v.data]} and {
            k: v.detach().clone() for k, v in model.state_dict().items()
        },
        "parameters": {k: (id(p), p.requires_grad, p._version) for k, p in model.named_parameters()},
        "buffers": {k: (id(b), b._version) for k, b in model.named_buffers()},
        "grads": {k: None if p.grad is None else id(p.grad) for k, p in model.named_parameters()},
        "modes": {k: m.training for k, m in model.named_modules()},
        "attributes": {k: list(vars(m)) for k, m in model.named_modules()},
        "hooks": {
            k: [list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)]
            for k, m in model.named_modules()
        },
        "random": (python, numpy[1].tolist(), numpy[2:], torch.get_rng_state()),
    }  # fmt: skip


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("raises", [False, True])
def test_a_model_and_all_random_numbers_are_as_before(raises):
    model, inputs = Busy(raises=raises), torch.randn(3, 4, 6)
    model.first.weight.grad = torch.ones_like(model.first.weight)
    grad, total, batch = model.first.weight.grad, model.total, inputs.clone()
    before, generator = state_of(model), model.generator.get_state()
    if raises:
        with pytest.raises(GradGuardError, match="out of order"):
            preflight(model, inputs)
    else:
        preflight(model, inputs)
    assert same(before, state_of(model))
    assert model.first.weight.grad is grad
    assert torch.equal(grad, torch.ones_like(grad))
    assert (model.calls, model.seen, model.names, model.seen_by_hook) == (0, [], {"a": 1}, [])
    assert model.total is total
    assert torch.equal(total, torch.zeros(3))
    assert torch.equal(model.generator.get_state(), generator)
    assert torch.equal(inputs, batch)
    assert not hasattr(model, "extra")


def test_running_statistics_and_counters_of_batch_norm_stay():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    preflight(model, torch.randn(16, 4) + 5.0)
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert torch.equal(model[1].running_var, torch.ones(4))
    assert model[1].num_batches_tracked.item() == 0


def test_training_goes_on_as_if_nothing_had_been_checked():
    def trained(*, checked):
        torch.manual_seed(7)
        model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            if checked and step == 1:
                preflight(model, torch.randn(4, 8, generator=torch.Generator()))
            optimizer.zero_grad()
            model(torch.randn(4, 8)).square().mean().backward()
            optimizer.step()
        return list(model.state_dict().values())

    assert all(map(torch.equal, trained(checked=False), trained(checked=True)))


# --- whatever comes ------------------------------------------------------------------------


def test_a_model_without_gradients_around_it_is_measured_all_the_same():
    model, inputs = stack(4), torch.randn(8, 64)
    expected = preflight(model, inputs)
    with torch.no_grad():
        assert preflight(model, inputs) == expected
    with torch.inference_mode():
        assert preflight(model, inputs.clone()) == expected


def test_frozen_layers_are_measured_and_named():
    model = stack(4)
    expected = preflight(model, torch.ones(2, 64))
    model[0].requires_grad_(requires_grad=False)
    result = preflight(model, torch.ones(2, 64))
    assert result.layers == expected.layers
    assert "frozen, and measured as if not: 0" in result.notes


def test_a_model_in_eval_mode_is_measured_so_and_says_so():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9), nn.Linear(4, 4)).eval()
    result = preflight(model, torch.randn(8, 4))
    assert any("eval mode" in note for note in result.notes)
    assert not model.training
    assert not any("eval mode" in note for note in preflight(model.train(), torch.ones(2, 4)).notes)


def test_compiled_modules_are_measured_as_written():
    model, inputs = stack(3), torch.randn(8, 64)
    expected = preflight(model, inputs)
    wrapped = preflight(torch.compile(model, backend="eager"), inputs)
    assert wrapped == expected
    inner = nn.Sequential(torch.compile(model[0], backend="eager"), *model[1:])
    assert preflight(inner, inputs).layers == expected.layers
    assert hasattr(inner[0], "_orig_mod")
    model[2].compile(backend="eager")
    within = preflight(model, inputs)
    assert within.layers == expected.layers
    assert within.notes == ("compiled modules were measured as written",)
    assert model[2]._compiled_call_impl is not None


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_are_measured_with_other_weights_too(kind):
    model = kind(8, 8, num_layers=2)
    result = preflight(model, torch.randn(5, 3, 8))
    assert [(layer.name, layer.role) for layer in result.layers] == [
        ("(root)", "recurrent" if kind is nn.RNN else "gated")
    ]
    outputs = {s.layers[0].forward_rms for s in (result.given, *result.alternatives)}
    assert len(outputs) == 5
    assert model._flat_weights[0] is model.weight_ih_l0


def test_a_transformer_layer_is_measured():
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    result = preflight(model, torch.randn(2, 5, 16))
    assert [layer.name for layer in result.layers] == ["self_attn", "linear1", "linear2"]
    assert result.notes == ()


def test_tied_weights_stay_tied_and_embeddings_are_not_judged():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 8)
            self.body = nn.Linear(8, 8)
            self.head = nn.Linear(8, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.body(self.embed(tokens)))

    model = Language()
    result = preflight(model, torch.randint(11, (4, 6)))
    assert [layer.name for layer in result.layers] == ["embed", "body", "head"]
    assert [layer.name for layer in result.given.judged] == ["body", "head"]
    for signal in result.alternatives:
        assert signal.layers[0].forward_rms == result.layers[0].forward_rms
    assert model.head.weight is model.embed.weight


def test_weights_that_are_made_of_others_are_left_alone_and_named():
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4), nn.Linear(4, 4)
    )
    result = preflight(model, torch.randn(8, 4))
    assert "weights stay as they are in the comparison: 0" in result.notes
    first = {signal.layers[0].forward_rms for signal in (result.given, *result.alternatives)}
    assert len(first) == 1


def test_zero_weights_are_no_fault_and_say_why_nothing_can_be_said():
    model = stack(6, initialise=he)
    nn.init.zeros_(model[-1].weight)
    result = preflight(model, torch.randn(16, 64))
    assert (result.status, result.is_faulty, result.zero_layers) == ("unknown", False, ("12",))
    assert "those of 12 are zero; He" in result.verdict


def test_a_branch_that_starts_at_zero_is_no_fault():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(16, 16), nn.Linear(16, 16)
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)

        def forward(self, x):
            return x + self.outer(self.inner(x).relu())

    model = nn.Sequential(nn.Linear(16, 16), *(Residual() for _ in range(6)), nn.Linear(16, 4))
    result = preflight(model, torch.randn(16, 16))
    assert result.status == "kept"


def test_a_gradient_that_is_cut_off_is_told():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.after = stack(2), nn.Sequential(*(nn.Linear(10, 10) for _ in "abc"))

        def forward(self, x):
            return self.after(self.before(x).detach())

    result = preflight(Cut(), torch.randn(16, 64))
    assert (result.status, result.is_faulty) == ("lost", True)
    assert "no gradient arrives at before.0 … before.4 (3 layers under before.*)" in result.verdict


def test_numbers_that_overflow_are_told():
    model = stack(6)
    nn.init.constant_(model[4].weight, 1e38)
    result = preflight(model, torch.randn(16, 64))
    assert result.status == "nonfinite"
    assert result.verdict.startswith("numbers are not finite at 4")
    json.dumps(result.to_dict(), allow_nan=False)


def test_two_layers_are_too_few_to_speak_of_depth():
    result = preflight(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), torch.ones(3, 2))
    assert (result.status, result.is_faulty) == ("unknown", False)
    assert "it takes 3 layers with a weight matrix, and 2 were called" in result.verdict


def test_a_single_example_is_measured_by_its_root_mean_square():
    result = preflight(stack(12), torch.randn(1, 64))
    assert result.layers[0].forward == result.layers[0].forward_rms
    assert any("one example" in note for note in result.notes)


def test_what_is_called_only_when_the_gradient_is_computed_again_counts_once():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            again = torch.utils.checkpoint.checkpoint
            return again(self.inner, x, use_reentrant=False).square()

    (layer,) = preflight(Checkpointed(), torch.randn(3, 4)).layers
    assert layer.calls == 1
    assert layer.backward_rms > 0.0


# --- batches and losses --------------------------------------------------------------------


class Two(nn.Module):
    """Takes two inputs by name, and returns a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, left, right, labels=None):
        output = self.inner(left + right)
        return {"loss": output.square().mean() if labels is not None else None, "logits": output}


Pair = namedtuple("Pair", ["left", "right"])  # noqa: PYI024


@pytest.mark.parametrize(
    ("batch", "ending"),
    [
        ({"left": torch.ones(3, 4), "right": torch.ones(3, 4)}, "random"),
        ({"left": torch.ones(3, 4), "right": torch.ones(3, 4), "labels": torch.ones(3)}, "model"),
        (((torch.ones(3, 4), torch.ones(3, 4)), torch.ones(3)), "random"),
    ],
)
def test_inputs_go_by_name_or_in_order(batch, ending):
    result = preflight(Two(), batch)
    assert (len(result.layers), result.ending) == (1, ending)


def test_a_mapping_whose_names_do_not_fit_is_one_input():
    class Takes(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, batch):
            return self.inner(batch["x"] if isinstance(batch, dict) else batch.left)

    assert preflight(Takes(), {"x": torch.ones(3, 4)}).layers
    assert preflight(Takes(), Pair(torch.ones(3, 4), torch.ones(3, 4))).layers


def test_a_loss_gets_the_targets_where_there_are_some():
    model, inputs = nn.Linear(4, 2), torch.randn(3, 4)
    alone = preflight(model, inputs, loss=lambda output: output.square().mean())
    with_targets = preflight(model, [inputs, torch.zeros(3, 2)], loss=functional.mse_loss)
    assert alone.layers == with_targets.layers
    assert alone.ending == "loss"


def test_a_list_of_one_is_inputs():
    assert preflight(nn.Linear(4, 2), [torch.ones(3, 4)]).layers


@pytest.mark.parametrize(
    ("model", "batch", "options", "error", "message"),
    [
        ("net", torch.ones(1), {}, TypeError, "`model` must be a torch module, got 'net'"),
        (nn.ReLU(), torch.ones(1), {}, ValueError, "a weight matrix, got ReLU without one"),
        (nn.BatchNorm1d(2), torch.ones(2, 2), {}, ValueError, "a weight matrix"),
        (nn.LazyLinear(2), torch.ones(1, 1), {}, ValueError, "'weight', which is lazy. Call"),
        (nn.Linear(2, 2, device="meta"), torch.ones(1, 2), {}, ValueError, "on the meta device"),
        (nn.Linear(2, 2), torch.ones(1, 2), {"loss": 3}, TypeError, "`loss` must be a function"),
        (nn.Linear(2, 2), torch.ones(1, 2), {"seed": 0.5}, TypeError, "`seed` must be an integer"),
        (nn.Linear(2, 2), torch.ones(1, 2), {"seed": -1}, ValueError, "`seed` must be in"),
        (nn.Linear(2, 2), (1, 2, 3), {}, ValueError, "got a tuple of 3. Put several inputs"),
        (nn.Linear(2, 2), torch.ones(1, 3), {}, GradGuardError, "got RuntimeError: mat1"),
        (nn.Linear(2, 2), torch.ones(1, 2).long(), {}, GradGuardError, "(last called: (root))"),
        (nn.Embedding(2, 2), torch.ones(1, 2), {}, GradGuardError, "Give a batch as the model's"),
        (
            nn.Linear(2, 2),
            torch.ones(1, 2),
            {"loss": lambda output: output},
            GradGuardError,
            "`loss` must return a loss: one number that depends on the weights, got a tensor of "
            "shape (1, 2)",
        ),
        (
            nn.Linear(2, 2),
            torch.ones(1, 2),
            {"loss": lambda _output: torch.ones(())},
            GradGuardError,
            "which no gradient flows from",
        ),
    ],
)
def test_what_cannot_be_checked_is_refused_with_a_way_out(model, batch, options, error, message):
    with pytest.raises(error) as told:
        preflight(model, batch, **options)
    assert message in str(told.value)


def test_torchscript_is_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(model)
    for given in (scripted, nn.Sequential(scripted)):
        with pytest.raises(ValueError, match="TorchScript. Give the module that it was made from"):
            preflight(given, torch.ones(1, 2))


def test_layers_that_are_never_called_as_modules_are_told():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            return self.inner.forward(x)

    with pytest.raises(GradGuardError, match=r"called none of its 1. Call `layer\(x\)`"):
        preflight(Inner(), torch.ones(1, 2))
    model = nn.Sequential(Inner(), nn.Linear(2, 2))
    assert "not called, so not measured: 0.inner" in preflight(model, torch.ones(1, 2)).notes


def test_an_output_that_no_gradient_flows_from_is_told():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            with torch.no_grad():
                return self.inner(x)

    with pytest.raises(GradGuardError, match=r"Take away `torch.no_grad` or `detach`"):
        preflight(Detached(), torch.ones(1, 2))


def test_a_model_that_raises_with_other_weights_only_is_measured_as_it_is():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)
            nn.init.zeros_(self.inner.weight)

        def forward(self, x):
            if self.inner.weight.any():
                msg = "not zero"
                raise ValueError(msg)
            return self.inner(x)

    result = preflight(Picky(), torch.ones(1, 2))
    assert result.alternatives == ()
    assert sum("not measured with" in note for note in result.notes) == 4


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
