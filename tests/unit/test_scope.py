"""Which parameters are watched, and in which order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard import Probe
from lightning_gradguard.order import CallOrder
from lightning_gradguard.scope import ROOT, Scope, clean_name, role_of, unwrap


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.embed.weight


class Attention(nn.Module):
    """Registers the head first and calls it last."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.attend = nn.MultiheadAttention(4, 2)
        self.stem = nn.Linear(4, 4)
        self.offset = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        x = self.stem(x + self.offset)
        return self.head(self.attend(x, x, x)[0])


def names(scope: Scope) -> list[str]:
    return [tensor.name for tensor in scope.tensors]


def ordered_layers(model: nn.Module, calls: dict[str, int]) -> list[str]:
    tensors = Scope.of(model).in_depth_order(model.parameters(), calls)
    return list(dict.fromkeys(tensor.layer for tensor in tensors))


def calls_of(model: nn.Module, *inputs: torch.Tensor) -> dict[str, int]:
    order = CallOrder(model)
    model(*inputs)
    order.remove()
    return order.calls


def test_tied_weight_is_watched_once_under_its_first_name() -> None:
    scope = Scope.of(Tied())
    assert names(scope) == ["embed.weight", "head.bias"]
    assert scope.tensors[0].aliases == ("head.weight",)
    assert scope.tensors[1].aliases == ()


def test_globs_reach_a_tied_weight_under_either_name() -> None:
    assert names(Scope.of(Tied(), include=["head.weight"])) == ["embed.weight"]


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(requires_grad=False)
    assert names(Scope.of(model)) == ["1.weight", "1.bias"]


def test_lazy_parameters_are_named_and_found_once_they_have_a_shape() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    before = Scope.of(model)
    assert tuple(before.lazy) == ("0.weight", "0.bias")
    assert names(before) == ["1.weight", "1.bias"]
    model(torch.ones(1, 2))
    after = Scope.of(model)
    assert after.lazy == {}
    assert names(after) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_a_glob_may_wait_for_a_lazy_parameter() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    assert names(Scope.of(model, exclude=["0.*"])) == ["1.weight", "1.bias"]


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("_orig_mod.encoder.weight", "encoder.weight"),
        ("module.encoder.weight", "module.encoder.weight"),  # somebody's own attribute
        ("a._checkpoint_wrapped_module.b", "a.b"),
        ("_fsdp_wrapped_module.a._fsdp_wrapped_module.b", "a.b"),
        ("encoder.module.weight", "encoder.module.weight"),
        ("not_orig_mod.weight", "not_orig_mod.weight"),
        ("a._orig_mod", "a"),
        ("_orig_mod", ""),
    ],
)
def test_wrappers_leave_no_trace_in_a_name(name, cleaned) -> None:
    assert clean_name(name) == cleaned


def test_a_data_parallel_wrapper_leaves_no_trace_in_a_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert unwrap(nn.DataParallel(model)) is unwrap(model) is model


def test_what_is_compiled_in_place_comes_after_what_is_registered_before_it() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    calls = {"(root)": 0, "0": 1, "2": 2}
    ordered = Scope.of(model).in_depth_order(model.parameters(), calls)
    assert [tensor.name for tensor in ordered if "weight" in tensor.name] == [
        "0.weight",
        "1.0.weight",
        "2.weight",
    ]


def test_compiled_model_has_the_names_of_the_plain_one() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert names(Scope.of(torch.compile(model, backend="eager"))) == names(Scope.of(model))


@pytest.mark.parametrize("argument", ["include", "exclude"])
def test_glob_that_matches_nothing_is_an_error_that_shows_real_names(argument) -> None:
    with pytest.raises(ValueError, match=rf"{argument}='enc\.\*'") as error:
        Scope.of(Tied(), **{argument: ["enc.*"]})
    assert "'embed.weight', 'head.bias'" in str(error.value)
    assert "…" not in str(error.value)


def test_error_about_a_glob_shows_three_names_of_many() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"'0\.weight', '0\.bias', '1\.weight', …$"):
        Scope.of(model, include=["nothing"])


def test_globs_that_leave_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="leave none of 2 parameters"):
        Scope.of(nn.Linear(1, 1), exclude=["weight", "bias"])


def test_model_without_parameters_is_an_empty_scope() -> None:
    assert Scope.of(nn.ReLU()).tensors == ()


def test_include_and_exclude_take_layers_or_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert names(Scope.of(model, include=["0"], exclude=["*.bias"])) == ["0.weight"]
    assert names(Scope.of(model, exclude=["0.*"])) == ["1.weight", "1.bias"]
    assert names(Scope.of(model, include=["*.bias"])) == ["0.bias", "1.bias"]


def test_a_row_is_a_module_or_a_parameter() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert [t.layer for t in Scope.of(model).tensors] == ["0", "0"]
    assert [t.layer for t in Scope.of(model, group_by="parameter").tensors] == [
        "0.weight",
        "0.bias",
    ]


def test_parameters_of_the_outermost_module_belong_to_the_root() -> None:
    assert {tensor.layer for tensor in Scope.of(nn.Linear(1, 1)).tensors} == {ROOT}


def test_without_calls_layers_come_in_registration_order() -> None:
    assert ordered_layers(Attention(), {}) == [
        ROOT,
        "head",
        "attend",
        "attend.out_proj",
        "stem",
    ]


def test_layers_come_in_the_order_of_their_first_calls() -> None:
    model = Attention()
    calls = calls_of(model, torch.ones(3, 1, 4))
    assert "attend.out_proj" not in calls  # its weight is used without calling it
    assert ordered_layers(model, calls) == [ROOT, "stem", "attend", "attend.out_proj", "head"]


def test_single_parameters_keep_the_depth_of_their_module() -> None:
    model = Attention()
    scope = Scope.of(model, group_by="parameter")
    calls = calls_of(model, torch.ones(3, 1, 4))
    layers = [tensor.layer for tensor in scope.in_depth_order(model.parameters(), calls)]
    assert layers == [
        "offset",
        "stem.weight",
        "stem.bias",
        "attend.in_proj_weight",
        "attend.in_proj_bias",
        "attend.out_proj.weight",
        "attend.out_proj.bias",
        "head.weight",
        "head.bias",
    ]


def test_only_the_wanted_parameters_are_returned() -> None:
    model = Attention()
    wanted = Scope.of(model).in_depth_order(model.stem.parameters(), {})
    assert [tensor.name for tensor in wanted] == ["stem.weight", "stem.bias"]


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))


class Container(nn.Module):
    """Has a matrix of its own beside layers, as a vision transformer has its positions."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(5, 4))
        self.layer = nn.Linear(4, 4)


class RMSNorm(nn.Module):
    """Somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


ROLES = {
    "linear": (nn.Linear(2, 2), "weights"),
    "one output": (nn.Linear(2, 1), "weights"),
    "convolution": (nn.Conv2d(2, 2, 3), "weights"),
    "depthwise convolution": (nn.Conv2d(4, 4, 3, groups=4), "weights"),
    "bilinear": (nn.Bilinear(2, 2, 2), "weights"),
    "attention": (nn.MultiheadAttention(4, 2), "weights"),
    "parametrized": (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "weights"),
    "rnn": (nn.RNN(2, 2), "recurrent"),
    "rnn cell": (nn.RNNCell(2, 2), "recurrent"),
    "lstm": (nn.LSTM(2, 2), "gated"),
    "gru cell": (nn.GRUCell(2, 2), "gated"),
    "embedding": (nn.Embedding(3, 2), "embedding"),
    "embedding bag": (nn.EmbeddingBag(3, 2), "embedding"),
    "batch norm": (nn.BatchNorm2d(4), "norm"),
    "layer norm of two dimensions": (nn.LayerNorm(4), "norm"),
    "group norm": (nn.GroupNorm(2, 4), "norm"),
    "own norm": (RMSNorm(), "norm"),
    "scale per channel": (Scale(), "vectors"),
    "prelu": (nn.PReLU(4), "vectors"),
    "container": (Container(), "container"),
}


@pytest.mark.parametrize(("module", "role"), ROLES.values(), ids=ROLES)
def test_role_of_a_module(module, role) -> None:
    assert role_of(module) == role


def test_each_parameter_has_the_role_of_its_module() -> None:
    model = nn.Sequential(nn.Embedding(3, 4), Container(), nn.LayerNorm(4))
    roles = {tensor.layer: tensor.role for tensor in Scope.of(model).tensors}
    assert roles == {"0": "embedding", "1": "container", "1.layer": "weights", "2": "norm"}


def test_as_a_row_of_its_own_a_bias_is_a_vector() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2), nn.LayerNorm(2))
    roles = {t.name: t.role for t in Scope.of(model, group_by="parameter").tensors}
    assert roles["0.weight"] == "weights"
    assert roles["0.bias"] == "vectors"
    assert roles["1.weight_hh_l0"] == "gated"
    assert roles["1.bias_hh_l0"] == "vectors"
    assert roles["2.weight"] == "norm"


@pytest.mark.parametrize(
    ("module", "dim"),
    [
        (nn.Linear(2, 3), 0),
        (nn.Conv1d(2, 4, 3), 0),
        (nn.Conv2d(4, 4, 3, groups=2), 0),
        (nn.ConvTranspose2d(2, 4, 3), 1),
        (nn.ConvTranspose2d(4, 4, 3, groups=2), None),
        (nn.Embedding(3, 2), None),
        (nn.LayerNorm(2), None),
        (nn.RNN(2, 2), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_units_lie_along_the_outputs(module, dim) -> None:
    first = Scope.of(nn.Sequential(module)).tensors[0]
    assert first.unit_dim == dim
    assert first.has_units == (dim is not None)


def test_a_bias_has_no_units() -> None:
    assert [t.has_units for t in Scope.of(nn.Linear(2, 3)).tensors] == [True, False]


def test_a_layer_that_is_not_called_keeps_its_role() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Embedding(5, 3), nn.Linear(3, 2))
    probe = Probe(model)
    model[3](model[0](torch.ones(4, 3))).sum().backward()
    frame = probe.read(step=0)
    roles = dict(zip(frame.layers, frame.roles, strict=True))
    assert roles == {"0": "weights", "1": "norm", "2": "embedding", "3": "weights"}
