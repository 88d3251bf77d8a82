"""Which parameters are watched, and in which order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.order import CallOrder
from lightning_gradguard.scope import ROOT, Scope, clean_name, unwrap


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
