"""Parameters as columns: which, in what order, read how."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard.columns import Columns, refuse_unsupported
from lightning_gradguard.errors import GradGuardError
from lightning_gradguard.scope import Scope, WatchedTensor


def laid_out(model: nn.Module, **options) -> Columns:
    tensors = Scope.of(model).tensors
    layers = tuple(dict.fromkeys(tensor.layer for tensor in tensors))
    return Columns.of(layers, tensors, **options)


def names(columns: Columns, model: nn.Module) -> list[str]:
    known = {parameter: name for name, parameter in model.named_parameters()}
    return [known[parameter] for parameter in columns.parameters]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2000), nn.Linear(2000, 4), nn.LayerNorm(4), nn.Linear(4, 1))


def test_small_tensors_come_first_and_large_ones_are_sampled() -> None:
    model = network()
    columns = laid_out(model)
    found = names(columns, model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert set(found[-2:]) == {"0.weight", "1.weight"}
    assert columns.plan.num_whole == 6
    assert columns.layout.is_sampled.tolist() == [False] * 6 + [True] * 2


def test_exact_columns_read_everything_whole() -> None:
    columns = laid_out(network(), exact=True)
    assert columns.plan.num_whole == 8
    assert not columns.layout.is_sampled.any()


def test_each_column_knows_its_layer_its_size_and_whether_it_is_a_weight() -> None:
    model = network()
    columns = laid_out(model)
    for column, (name, parameter) in enumerate(
        zip(names(columns, model), columns.parameters, strict=True)
    ):
        layer = name.rpartition(".")[0]
        assert columns.layout.layers[columns.layout.row[column]] == layer
        assert columns.layout.size[column] == parameter.numel() == columns.plan.sizes[column]
        assert columns.layout.is_weight[column] == (parameter.dim() == 2)


def test_a_scale_per_channel_is_no_weight_and_a_kernel_is() -> None:
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4, 1, 1))
            self.kernel = nn.Parameter(torch.ones(4, 1, 3, 3))
            self.row = nn.Parameter(torch.ones(1, 4))

    model = Scales()
    columns = laid_out(model)
    is_weight = dict(zip(names(columns, model), columns.layout.is_weight.tolist(), strict=True))
    assert is_weight == {"scale": False, "kernel": True, "row": True}


def test_a_complex_number_makes_two_entries() -> None:
    columns = laid_out(nn.Linear(3, 4, dtype=torch.complex64))
    assert sorted(columns.plan.sizes) == [8, 24]
    assert columns.has_complex


def test_ordinary_gradients_are_read_as_they_are() -> None:
    columns = laid_out(network())
    gradients = [torch.randn_like(parameter) for parameter in columns.parameters]
    values, plan, layout = columns.read(gradients)
    assert values is gradients
    assert plan is columns.plan
    assert layout is columns.layout


def test_a_sparse_gradient_gets_a_plan_of_what_it_stores() -> None:
    columns = laid_out(nn.Embedding(10, 4, sparse=True))
    gradient = torch.sparse_coo_tensor(
        [[1, 5, 1]], torch.ones(3, 4), (10, 4), check_invariants=True
    )
    values, plan, layout = columns.read([gradient])
    assert (plan.sizes, columns.plan.sizes) == ((8,), (40,))
    assert (layout.stored.tolist(), layout.size.tolist()) == ([8.0], [40.0])
    assert values[0].sum().item() == 12.0


def test_a_plan_is_made_anew_only_for_new_sizes() -> None:
    columns = laid_out(nn.Linear(3, 4, dtype=torch.complex64))
    gradients = [torch.randn_like(parameter) for parameter in columns.parameters]
    assert columns.read(gradients)[1] is columns.read(gradients)[1]


class Cut(nn.Module):
    """A parameter that lies scattered in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10, 8)[:, :3])


def conjugated() -> nn.Module:
    model = nn.Linear(3, 4, dtype=torch.complex64)
    model.weight = nn.Parameter(torch.ones(4, 3, dtype=torch.complex64).conj())
    return model


@pytest.mark.parametrize("make", [network, Cut, conjugated])
def test_weights_are_those_of_now_however_they_changed(make) -> None:
    columns = laid_out(make())
    assert torch.equal(columns.sample_weights(), columns.sample_weights())
    with torch.no_grad():
        for parameter in columns.parameters:
            parameter.fill_(2.0)
        twos = columns.sample_weights()
        for parameter in columns.parameters:
            parameter.data = torch.full_like(parameter, 3.0)  # other memory
        threes = columns.sample_weights()
    # A complex number is two, and its imaginary part is zero.
    assert set(twos.tolist()) - {0.0} == {2.0}
    assert set(threes.tolist()) - {0.0} == {3.0}


def test_a_sample_of_weights_is_a_copy() -> None:
    columns = laid_out(nn.Linear(2, 2))
    before = columns.sample_weights()
    kept = before.clone()
    with torch.no_grad():
        for parameter in columns.parameters:
            parameter.zero_()
    assert torch.equal(before, kept)


def test_parameters_on_several_devices_are_refused_by_name() -> None:
    tensors = [
        WatchedTensor("a", "(root)", nn.Parameter(torch.ones(1))),
        WatchedTensor("b", "(root)", nn.Parameter(torch.ones(1, device="meta"))),
    ]
    with pytest.raises(GradGuardError, match="must be on one device, got cpu, meta"):
        refuse_unsupported(tensors)
