"""Gradients are clipped in place, by what was decided and no more."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_gradguard.actions.clipping import clip_, smallest_factor
from lightning_gradguard.remedies import (
    Clamp,
    ClipNorm,
    ClipValue,
    Scale,
    ScaleUnits,
    Skip,
)
from tests.clipping_oracles import moment_of_layers

pytestmark = pytest.mark.usefixtures("backend")

WIDE = torch.tensor([[3.0, -4.0], [0.5, 0.0]])


def sparse():
    """A gradient as an embedding leaves it, with one row in two parts."""
    values = torch.tensor([[1.0, -3.0], [0.5, 0.0], [2.0, -1.0]])
    return torch.sparse_coo_tensor([[0, 1, 0]], values, (2, 2), check_invariants=True)


MAKERS = {
    "float32": WIDE.clone,
    "float64": WIDE.double,
    "float16": WIDE.half,
    "bfloat16": WIDE.bfloat16,
    "complex": lambda: WIDE * (0.6 + 0.8j),
    "sparse": sparse,
    "expanded": lambda: torch.tensor(2.0).expand(2, 2),
    "expanded rows": lambda: torch.tensor([3.0, -4.0]).expand(2, 2),
    "turned": lambda: WIDE.T.contiguous().T,
    "huge": lambda: 1e20 * WIDE,
    "tiny": lambda: 1e-25 * WIDE,
}
every_kind = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def step(**gradients):
    return moment_of_layers({f"{name}.w": gradient for name, gradient in gradients.items()})


def numbers(moment):
    """Return all gradients as they are now, complex128 and dense."""
    found = []
    for member in moment.gradients.roster.members:
        gradient = member.parameter.grad
        if gradient is not None:
            found.append(gradient.to_dense().to(torch.complex128).numpy().copy())
    return found


def norm_of(arrays):
    return math.sqrt(math.fsum(float((np.abs(a) ** 2).sum()) for a in arrays))


@every_kind
@pytest.mark.parametrize("per", ["model", "layer", "unit"])
def test_afterwards_the_norm_is_at_the_limit_and_the_direction_is_the_same(make, per) -> None:
    moment = step(a=make())
    before = numbers(moment)
    size = norm_of(before)
    coefficient = clip_(moment.gradients, ClipNorm(0.1 * size, per=per).decide(moment))
    after = numbers(moment)
    tolerance = 1e-2 if moment.gradients.tensors[0].dtype.itemsize == 2 else 1e-5
    assert norm_of(after) <= 0.1 * size * (math.sqrt(2.0) if per == "unit" else 1.0) * (
        1 + tolerance
    )
    assert coefficient.item() == pytest.approx(norm_of(after) / size, rel=tolerance)
    for old, new in zip(before[0], after[0], strict=True):
        ratio = np.abs(new).sum() / np.abs(old).sum()
        np.testing.assert_allclose(new, ratio * old, rtol=2 * tolerance, atol=0.0)


@every_kind
def test_clamping_limits_every_entry_and_nothing_else(make) -> None:
    moment = step(a=make())
    (before,) = numbers(moment)
    limit = 0.5 * np.abs(before.real).max()
    coefficient = clip_(moment.gradients, ClipValue(limit).decide(moment))
    expected = np.clip(before.real, -limit, limit) + 1j * np.clip(before.imag, -limit, limit)
    np.testing.assert_allclose(numbers(moment)[0], expected, rtol=1e-2)
    assert coefficient.item() == pytest.approx(norm_of([expected]) / norm_of([before]), rel=1e-2)


DECISIONS = {
    "one factor": lambda: [Scale(torch.tensor(0.25), "a")],
    "one per member": lambda: [Scale(torch.tensor([0.25, 1.0, 0.5]), "a")],
    "two factors": lambda: [
        Scale(torch.tensor(0.25), "a"),
        Scale(torch.tensor([0.5, 0.125, 1.0]), "b"),
    ],
    "units": lambda: [ScaleUnits({0: torch.tensor([0.5, 0.25])}, "a")],
    "units with norms": lambda: [
        ScaleUnits({0: torch.tensor([0.5, 1.0])}, "a", {0: torch.tensor([5.0, 0.5])})
    ],
    "clamp": lambda: [Clamp(0.75, "a")],
    "clamp some": lambda: [Clamp(0.75, "a", members=[0, 1])],
    "all": lambda: [
        Clamp(2.0, "a"),
        Scale(torch.tensor([0.25, 1.0, 0.5]), "b"),
        ScaleUnits({0: torch.tensor([0.5, 0.125]), 2: torch.tensor([0.9])}, "c"),
    ],
    "two of units": lambda: [
        ScaleUnits({0: torch.tensor([0.5, 0.125])}, "a"),
        ScaleUnits({0: torch.tensor([0.25, 0.5]), 2: torch.tensor([0.9])}, "b"),
    ],
}


def oracle(arrays, decisions):
    """Entries first, then of all factors that concern a row the smallest."""
    found = [array.copy() for array in arrays]
    for clamp in (d for d in decisions if isinstance(d, Clamp)):
        for i in range(len(found)) if clamp.members is None else clamp.members:
            parts = found[i].real.clip(-clamp.limit, clamp.limit)
            found[i] = parts + 1j * found[i].imag.clip(-clamp.limit, clamp.limit)
    for i, array in enumerate(found):
        rows = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)
        for j in range(len(rows)):
            factors = [1.0]
            for d in decisions:
                if isinstance(d, Scale):
                    factors.append(float(d.factors if d.factors.dim() == 0 else d.factors[i]))
                if isinstance(d, ScaleUnits) and i in d.factors:
                    factors.append(float(d.factors[i][j]))
            rows[j] *= min(factors)
    return found


def three(first=WIDE.clone):
    return step(a=first(), b=torch.tensor([1.0, -2.0]), c=torch.tensor([0.5, 0.25, 8.0]))


@pytest.mark.parametrize("make", [WIDE.clone, sparse], ids=["dense", "sparse"])
@pytest.mark.parametrize("decisions", DECISIONS.values(), ids=DECISIONS)
def test_what_was_decided_is_done_and_told(make, decisions) -> None:
    moment = three(make)
    before = numbers(moment)
    expected = oracle(before, decisions())
    told = clip_(moment.gradients, decisions())
    for found, wanted in zip(numbers(moment), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert told.item() == pytest.approx(norm_of(expected) / norm_of(before))


@pytest.mark.parametrize("make", [WIDE.clone, sparse, MAKERS["expanded rows"]])
@pytest.mark.parametrize("decisions", DECISIONS.values(), ids=DECISIONS)
def test_a_dry_run_tells_the_same_and_changes_nothing(make, decisions) -> None:
    dry, real = three(make), three(make)
    tensors, before = [m.parameter.grad for m in dry.gradients.roster.members], numbers(dry)
    told = clip_(dry.gradients, decisions(), dry_run=True)
    assert told.item() == pytest.approx(clip_(real.gradients, decisions()).item())
    for member, tensor in zip(dry.gradients.roster.members, tensors, strict=True):
        assert member.parameter.grad is tensor
    for now, then in zip(numbers(dry), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_dry_run_works_where_some_have_no_gradient() -> None:
    moment = moment_of_layers({"a.w": None, "b.w": torch.tensor([3.0, 4.0])})
    told = clip_(moment.gradients, [Clamp(3.0, "v")], dry_run=True)
    assert told.item() == pytest.approx(math.sqrt(18.0) / 5.0)
    assert numbers(moment)[0].real.tolist() == [3.0, 4.0]


def test_factors_that_are_no_shares_do_no_harm() -> None:
    """A remedy of the user's may return anything."""
    for factor, expected in ((math.nan, 8.0), (3.0, 8.0), (-1.0, 0.0)):
        for decision in (
            Scale(torch.tensor(factor), "x"),
            ScaleUnits({0: torch.tensor([factor])}, "x"),
        ):
            moment = step(a=torch.tensor([[8.0]]))
            clip_(moment.gradients, [decision])
            assert numbers(moment)[0].real.tolist() == [[expected]]


def test_gradients_with_a_scale_in_them_are_limited_without_it() -> None:
    scale = torch.tensor(1024.0)
    for remedy, expected in ((ClipNorm(0.5), 0.5), (ClipValue(0.25), math.sqrt(0.25**2 * 2))):
        moment = moment_of_layers({"a.w": 1024.0 * torch.tensor([3.0, 4.0])}, scale=scale)
        told = clip_(moment.gradients, remedy.decide(moment))
        (after,) = numbers(moment)
        assert norm_of([after]) / 1024.0 == pytest.approx(expected)
        assert told.item() == pytest.approx(expected / 5.0)


def test_parameters_without_a_gradient_stay_without() -> None:
    moment = moment_of_layers({"a.w": None, "b.w": torch.tensor([3.0, 4.0]), "c.w": None})
    told = clip_(
        moment.gradients, [Scale(torch.tensor([0.9, 0.5, 0.1]), "x"), Clamp(9.0, "y", [0, 1])]
    )
    assert told.item() == pytest.approx(0.5)
    assert [m.parameter.grad is None for m in moment.gradients.roster.members] == [
        True,
        False,
        True,
    ]


def test_without_gradients_or_without_clipping_nothing_happens() -> None:
    nobody = moment_of_layers({"a.w": None})
    assert clip_(nobody.gradients, [Clamp(1.0, "v")]).item() == 1.0
    moment = three()
    assert clip_(moment.gradients, [Skip(torch.ones((), dtype=torch.bool), "no")]).item() == 1.0
    assert smallest_factor([Clamp(1.0, "v")], moment.gradients) is None


@pytest.mark.parametrize(
    "decision",
    [
        Scale(torch.tensor([1.0, 0.5]), "s"),
        ScaleUnits({0: torch.ones(2), 1: torch.tensor([0.5, 1.0])}, "u"),
        Clamp(5.0, "c"),
    ],
    ids=["factors", "units", "limit"],
)
def test_a_sparse_gradient_stays_in_its_parts_while_another_one_is_clipped(decision) -> None:
    moment = step(a=sparse(), b=2.0 * WIDE)
    gradient = moment.gradients.tensors[0]
    assert clip_(moment.gradients, [decision]).item() < 1.0
    assert moment.gradients.roster.members[0].parameter.grad is gradient
    assert torch.equal(gradient._values(), sparse()._values())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_of_what_is_not_finite_no_coefficient_is_known(bad) -> None:
    moment = step(a=torch.tensor([1.0, bad]), b=torch.tensor([5.0]))
    told = clip_(moment.gradients, ClipNorm(0.5).decide(moment))
    assert math.isnan(told.item())
    assert numbers(moment)[1].tolist() == [5.0]
    zeros = step(a=torch.zeros(2))
    assert clip_(zeros.gradients, ClipNorm(0.5).decide(zeros)).item() == 1.0


def test_a_factor_too_small_for_the_dtype_of_a_gradient_does_not_erase_it() -> None:
    for per in ("model", "layer", "unit"):
        moment = step(a=torch.full((2, 4), 60000.0, dtype=torch.float16))
        clip_(moment.gradients, ClipNorm(1e-3, per=per).decide(moment))
        norm = norm_of(numbers(moment))
        assert norm == pytest.approx(1e-3 * (math.sqrt(2.0) if per == "unit" else 1.0), rel=2e-2)


def test_a_vector_is_one_unit_even_a_sparse_one() -> None:
    entries = torch.sparse_coo_tensor(
        [[0, 3]], torch.tensor([3.0, 4.0]), (5,), check_invariants=True
    )
    moment = step(a=entries, b=torch.tensor(8.0))
    clip_(moment.gradients, ClipNorm(1.0, per="unit").decide(moment))
    assert numbers(moment)[0].real.tolist() == pytest.approx([0.6, 0.0, 0.0, 0.8, 0.0])
    assert numbers(moment)[1].real == pytest.approx(1.0)
