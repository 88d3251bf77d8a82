"""Laws of acting: never larger, never turned, in any order, once as good as twice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.actions.clipping import clip_
from lightning_gradguard.actions.states import Generations
from lightning_gradguard.remedies import AGC, Clamp, ClipNorm, ClipValue, Scale, ScaleUnits
from lightning_gradguard.remedies.gradients import Gradients, Roster
from lightning_gradguard.remedies.segments import PER, segment_norms
from tests.clipping_oracles import moment_of_layers

SHAPES = {
    "a.weight": (3, 2),
    "a.bias": (3,),
    "b.weight": (2, 2, 2),
    "c.scale": (),
    "d.weight": (0, 2),
}

entries = st.floats(-100.0, 100.0, width=32) | st.sampled_from([0.0, 1e20, -1e20, 1e-25, 1e-30])
kinds = st.sampled_from(["strided", "missing", "sparse", "turned", "complex", "float64"])


@st.composite
def layers(draw, kinds=kinds):
    """Draw gradients of all kinds, at least one of them present."""
    found = {}
    for name, shape in SHAPES.items():
        size = math.prod(shape)
        dense = torch.tensor(draw(st.lists(entries, min_size=size, max_size=size)))
        dense, kind = dense.reshape(shape), draw(kinds)
        if kind == "missing" and name != "a.weight":
            found[name] = None
        elif kind == "sparse" and dense.dim() > 1 and size:
            found[name] = dense.to_sparse(1)
        elif kind == "turned" and dense.dim() > 1:
            found[name] = dense.movedim(-1, 0).contiguous().movedim(0, -1)
        elif kind == "complex":
            found[name] = dense * (0.6 + 0.8j)
        else:
            found[name] = dense.double() if kind == "float64" else dense
    return found


factors = st.floats(0.0, 1.0)


@st.composite
def decisions(draw):
    """Draw decisions as remedies may make them."""
    names = list(SHAPES)
    found = []
    for kind in draw(st.lists(st.sampled_from(["one", "each", "units", "clamp"]), max_size=5)):
        if kind == "one":
            found.append(Scale(torch.tensor(draw(factors)), "one"))
        elif kind == "each":
            each = draw(st.lists(factors, min_size=len(names), max_size=len(names)))
            found.append(Scale(torch.tensor(each), "each"))
        elif kind == "clamp":
            found.append(Clamp(draw(st.floats(1e-3, 1e3)), "clamp"))
        else:
            chosen = draw(st.sets(st.sampled_from(range(len(names))), min_size=1))
            units = {
                i: (SHAPES[names[i]] or (1,))[0] if len(SHAPES[names[i]]) > 1 else 1 for i in chosen
            }
            table = {
                i: torch.tensor(draw(st.lists(factors, min_size=n, max_size=n)))
                for i, n in units.items()
            }
            found.append(ScaleUnits(table, "units"))
    return found


def step(gradients):
    return moment_of_layers({n: None if g is None else g.clone() for n, g in gradients.items()})


def values(moment):
    """Return all gradients as one vector each, complex128."""
    members = moment.gradients.roster.members
    grads = [m.parameter.grad for m in members if m.parameter.grad is not None]
    return [g.to_dense().to(torch.complex128).numpy().copy() for g in grads]


def norm_of(arrays):
    return float(np.sqrt(sum((np.abs(a) ** 2).sum() for a in arrays)))


@given(layers(), decisions(), st.randoms())
def test_decisions_give_the_same_in_any_order(gradients, wanted, random) -> None:
    one, other = step(gradients), step(gradients)
    shuffled = random.sample(wanted, len(wanted))
    told = clip_(one.gradients, wanted), clip_(other.gradients, shuffled)
    torch.testing.assert_close(*told, equal_nan=True)
    for mine, theirs in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@given(layers(), decisions())
def test_no_entry_grows_and_none_changes_its_sign(gradients, wanted) -> None:
    moment = step(gradients)
    before = values(moment)
    clip_(moment.gradients, wanted)
    for old, new in zip(before, values(moment), strict=True):
        for x, y in ((old.real, new.real), (old.imag, new.imag)):
            assert (np.abs(y) <= np.abs(x) * (1 + 1e-6)).all()
            assert (x * y >= 0.0).all()


@given(layers(), decisions())
def test_what_is_told_is_what_happened_and_a_dry_run_tells_the_same(gradients, wanted) -> None:
    real, dry = step(gradients), step(gradients)
    before = values(real)
    told = clip_(real.gradients, wanted).item()
    expected = norm_of(values(real)) / norm_of(before) if norm_of(before) > 0.0 else 1.0
    assert told == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert clip_(dry.gradients, wanted, dry_run=True).item() == pytest.approx(
        told, rel=1e-5, abs=1e-12
    )
    for old, now in zip(before, values(dry), strict=True):
        np.testing.assert_array_equal(old, now)


@pytest.mark.parametrize("per", PER)
@given(gradients=layers(), limit=st.sampled_from([1e-10, 1e-3, 1.0, 50.0, 1e19]))
def test_every_segment_is_within_its_limit_and_clipping_again_changes_nothing(
    per, gradients, limit
) -> None:
    moment = step(gradients)
    clip_(moment.gradients, ClipNorm(limit, per=per).decide(moment))
    after = Gradients.of(moment.gradients.roster)
    norms = segment_norms(after, per)
    assert (norms.nan_to_num(0.0) <= limit * (1 + 1e-5)).all()
    once = values(moment)
    again = type(moment)(step=0, gradients=after)
    clip_(after, ClipNorm(limit, per=per).decide(again))
    for mine, theirs in zip(once, values(moment), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)


@given(layers(), st.floats(1e-3, 1e3))
def test_clamping_twice_is_clamping_once(gradients, limit) -> None:
    moment = step(gradients)
    clip_(moment.gradients, ClipValue(limit).decide(moment))
    once = values(moment)
    assert all(np.abs(x.real).max(initial=0.0) <= limit * (1 + 1e-6) for x in once)
    again = Gradients.of(moment.gradients.roster)
    clip_(again, ClipValue(limit).decide(moment))
    for mine, theirs in zip(once, values(moment), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("remedy", [ClipNorm(0.5), AGC()], ids=["norm", "agc"])
@given(layers(st.just("strided")), st.permutations(range(len(SHAPES))))
def test_the_order_of_parameters_does_not_matter(remedy, gradients, order) -> None:
    one, other = step(gradients), step(gradients)
    members = other.gradients.roster.members
    turned = Gradients.of(Roster(tuple(members[i] for i in order)))
    clip_(one.gradients, remedy.decide(one))
    clip_(turned, remedy.decide(type(one)(step=0, gradients=turned)))
    for mine, theirs in zip(values(one), values(other), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(1, 5),
    st.lists(st.integers(0, 110), min_size=1, max_size=4),
)
def test_going_back_finds_the_newest_state_that_is_old_enough(gaps, most, wishes) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    states = Generations(model, [], most=most)
    kept = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    for at in kept:
        torch.nn.init.constant_(model.weight, at)
        states.keep({0: at})
    left = kept[-most:]
    for wish in wishes:
        old_enough = [at for at in left if at <= wish]
        assert states.find(wish) is bool(old_enough)
        if old_enough:
            states.restore_(wish)
            assert model.weight.item() == old_enough[-1]
            left = old_enough
