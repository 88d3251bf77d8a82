"""The initialisation check takes whatever models and batches come, or says why it does not."""

from __future__ import annotations

import json
import math
import warnings
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from lightning_gradguard import preflight
from lightning_gradguard.errors import GradGuardError, ShardedGradientError
from tests.stacks import he, stack


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
    alone = preflight(nn.MultiheadAttention(8, 2), ((torch.randn(3, 2, 8),) * 3, None))
    assert alone.notes == ()


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


def test_a_broken_batch_is_not_laid_at_the_weights():
    result = preflight(stack(3), torch.full((4, 64), math.nan))
    assert result.status == "nonfinite"
    assert "nor are they with any other initialisation: look at the batch" in result.verdict
    assert result.notes == ()


def test_units_that_are_all_closed_are_told():
    model = stack(5)
    for layer in model[::2]:
        nn.init.constant_(layer.bias, -10.0)
    result = preflight(model, torch.randn(16, 64))
    assert result.status == "lost"
    assert "all examples look alike in the output of 2 … 10 (5 layers)" in result.verdict


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
        (nn.Linear(2, 2), torch.ones(0, 2), {}, GradGuardError, "a batch that is not empty"),
        (nn.Linear(2, 2), torch.ones(1, 3), {}, GradGuardError, "got RuntimeError: mat1"),
        (nn.Linear(2, 2), torch.ones(1, 2).long(), {}, GradGuardError, "(last called: (root))"),
        (nn.Embedding(2, 2), torch.ones(1, 2), {}, GradGuardError, "Give a batch as the model's"),
        (
            nn.Linear(2, 2),
            torch.ones(1, 2),
            {"loss": lambda output: output},
            GradGuardError,
            "one number that depends on the weights, got a tensor of shape (1, 2)",
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


def test_weights_that_are_split_are_refused():
    model = nn.Linear(2, 2)
    model.weight.placements = ("Shard(0)",)
    with pytest.raises(ShardedGradientError, match="'weight', which is split over ranks"):
        preflight(model, torch.ones(1, 2))


def test_torchscript_is_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(model)
    for given in (scripted, nn.Sequential(scripted)):
        with pytest.raises(ValueError, match="TorchScript"):
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
