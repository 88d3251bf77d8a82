"""Clipping of parts: groups, layers, output units, and whatever a glob says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gradguard import remedies
from lightning_gradguard.errors import GradGuardError
from tests.e2e.guard_cases import (
    guard,
    train,
)
from tests.e2e.guard_clips import ByHand, assert_close, moved, two_groups

clip_grad_norm_ = nn.utils.clip_grad_norm_


def test_each_parameter_group_has_its_own_norm():
    def clip(optimizer, _parameters):
        for group in optimizer.param_groups:
            clip_grad_norm_(group["params"], 0.05)

    run = moved(two_groups(), guard(clip=remedies.ClipNorm(0.05, per="group")))
    assert_close(run, train(two_groups(), ByHand(clip)))


def test_each_layer_has_its_own_norm():
    def clip(_optimizer, parameters):
        for i in range(0, len(parameters), 2):  # weight and bias
            clip_grad_norm_(parameters[i : i + 2], 0.05)

    run = moved(two_groups(), guard(clip=remedies.ClipNorm(0.05, per="layer")))
    assert_close(run, train(two_groups(), ByHand(clip)))


def test_each_output_unit_has_its_own_norm():
    def clip(_optimizer, parameters):
        for parameter in parameters:
            grad = parameter.grad
            rows = grad if grad.dim() > 1 else grad.reshape(1, -1)
            parameter.grad = torch.renorm(rows, 2.0, 0, 0.02).reshape(grad.shape)

    run = moved(two_groups(), guard(clip=remedies.ClipNorm(0.02, per="unit")))
    assert_close(run, train(two_groups(), ByHand(clip)))


def test_of_several_globs_the_first_that_matches_a_layer_holds():
    globs = {"network.0.bias": 0.001, "network.0": 0.01, "network.*": remedies.ClipValue(0.02)}

    def clip(_optimizer, parameters):
        clip_grad_norm_(parameters[1:2], 0.001)
        clip_grad_norm_(parameters[0:1], 0.01)
        nn.utils.clip_grad_value_(parameters[2:], 0.02)

    run = moved(two_groups(), guard(clip=globs))
    assert_close(run, train(two_groups(), ByHand(clip)))


@pytest.mark.parametrize("wrap", [lambda part: part, remedies.OnceSlowed], ids=["bare", "wrapped"])
def test_a_glob_that_matches_nothing_is_an_error_that_names_what_there_is(wrap):
    clip = wrap(remedies.Only("critic.*", remedies.ClipNorm()))
    with pytest.raises(GradGuardError, match=r"No trained parameter matches 'critic\.\*'.*network"):
        train(two_groups(), guard(clip=clip))
