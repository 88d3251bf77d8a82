"""What every frame should say, computed in float64 from Lightning's own hooks.

Nothing here imports the package: each number is taken from dense copies of whole tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from tests import oracles

EXACT = ("grad_norm", "grad_rms", "grad_mean", "grad_std", "grad_abs_max", "num_nonfinite")
WEIGHTS = ("weight_grad_norm", "weight_param_norm", "weight_update_norm")
SAMPLED = ("zero_fraction", "param_norm", "update_norm", "update_ratio", "grad_ratio", *WEIGHTS)
LARGE = 4096
"""Tensors with more numbers than this are sampled, says the documentation."""


@dataclass
class Expected:
    """One step, by layer."""

    step: int
    epoch: int
    batch_idx: int
    loss: float
    learning_rates: tuple[float, ...]
    world_size: int
    layers: dict[str, dict[str, float]]
    histograms: dict[str, np.ndarray]
    is_sampled: dict[str, bool]
    global_grad_norm: float
    global_grad_norm_at_update: float | None = None
    clipped_fraction: float | None = None
    begins_clipping: bool = False


@dataclass
class _Before:
    """What was there when the gradients were complete."""

    step: Expected
    parameters: dict[str, Tensor]
    copies: dict[str, Tensor]
    gradients: dict[str, Tensor]
    factor: float


@dataclass
class Oracle(pl.Callback):
    """Take whole copies of gradients and parameters around each step.

    The module keeps ``losses``: one number for each backward pass.

    Args:
        is_scaled: Whether gradients are still scaled when they are complete, as for fused
            optimizers under a gradient scaler.
        is_raw: Whether optimizers step without telling Lightning.
        exact: Whether the monitor was told to sample nothing.
    """

    is_scaled: bool = False
    is_raw: bool = False
    exact: bool = False
    steps: dict[int, list[Expected]] = field(default_factory=dict)
    open: dict[int, _Before] = field(default_factory=dict)

    def on_train_start(self, trainer, module):
        for index, optimizer in enumerate(trainer.optimizers):
            self.steps[index] = []
            optimizer.register_step_post_hook(partial(self._after, index))
            if self.is_raw:
                optimizer.register_step_pre_hook(partial(self._before, trainer, module, index))

    def on_before_optimizer_step(self, trainer, module, optimizer):
        index = next(i for i, other in enumerate(trainer.optimizers) if other is optimizer)
        self._before(trainer, module, index, optimizer)

    def _before(self, trainer, module, index, optimizer, *_):
        mine = {p for group in optimizer.param_groups for p in group["params"]}
        parameters = {
            name.replace("_orig_mod.", ""): p
            for name, p in module.named_parameters()
            if p in mine and p.grad is not None
        }
        # Lightning divides each loss by a full window, whatever is in it.
        window = trainer.accumulate_grad_batches if module.automatic_optimization else 1
        factor = window / len(module.losses) if window > 1 else 1.0
        scale = trainer.precision_plugin.scaler.get_scale() if self.is_scaled else 1.0
        gradients = {n: numbers(p.grad) * factor / scale for n, p in parameters.items()}
        copies = {n: numbers(p) for n, p in parameters.items()}
        layers = {n.rpartition(".")[0] or "(root)": {} for n in parameters}
        histograms, is_sampled = {}, {}
        for layer in layers:
            gradient = joined(gradients, layer)
            layers[layer] = statistics(gradient, joined(copies, layer)) | {
                "weight_grad_norm": norm_of_weights(gradients, parameters, layer),
                "weight_param_norm": norm_of_weights(copies, parameters, layer),
            }
            histograms[layer] = oracles.log2_histogram(gradient.numpy())
            sizes = [len(c) for n, c in copies.items() if n.rpartition(".")[0] == layer]
            is_sampled[layer] = not self.exact and max(sizes, default=0) > LARGE
        step = Expected(
            step=len(self.steps[index]),
            epoch=trainer.current_epoch,
            batch_idx=trainer.fit_loop.batch_idx,
            loss=float(np.mean(module.losses)),
            learning_rates=tuple(group["lr"] for group in optimizer.param_groups),
            world_size=trainer.world_size,
            layers=layers,
            histograms=histograms,
            is_sampled=is_sampled,
            global_grad_norm=joined(gradients).norm().item(),
        )
        module.losses.clear()
        self.open[index] = _Before(step, parameters, copies, gradients, factor)

    def _after(self, index, *_):
        before = self.open.pop(index)
        step = before.step
        change = {n: numbers(p) - before.copies[n] for n, p in before.parameters.items()}
        for layer, expected in step.layers.items():
            size = joined(change, layer).norm().item()
            expected["update_norm"] = size
            expected["update_ratio"] = ratio(size, expected["param_norm"])
            expected["weight_update_norm"] = norm_of_weights(change, before.parameters, layer)
        # Nobody writes to gradients between their use and here, but for the unscaling of fused
        # optimizers, which is what they used.
        if all(p.grad is not None for p in before.parameters.values()):
            used = joined({n: numbers(p.grad) for n, p in before.parameters.items()})
            complete = joined(before.gradients) / before.factor
            step.global_grad_norm_at_update = used.norm().item()
            changed = ~torch.isclose(used, complete, rtol=1e-6, atol=0.0, equal_nan=True)
            step.clipped_fraction = changed.double().mean().item()
            before_that = self.steps[index][-1:]
            step.begins_clipping = [earlier.clipped_fraction for earlier in before_that] == [0.0]
        self.steps[index].append(step)


def numbers(tensor: Tensor) -> Tensor:
    """Return all entries of a tensor, stored or not, in float64 and in reading order."""
    tensor = tensor.detach()
    tensor = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.double().clone(memory_format=torch.contiguous_format).flatten()


def joined(tensors, layer=None) -> Tensor:
    own = [t for n, t in tensors.items() if layer in {None, n.rpartition(".")[0] or "(root)"}]
    return torch.cat(own)


def norm_of_weights(tensors, parameters, layer) -> float:
    """Return the norm over matrices and kernels; a vector that is written as one is none."""
    own = [n for n in tensors if (n.rpartition(".")[0] or "(root)") == layer]
    matrices = [n for n in own if parameters[n].dim() == 2 or parameters[n].squeeze().dim() > 1]
    return joined({n: tensors[n] for n in matrices}).norm().item() if matrices else math.nan


def statistics(gradient, parameter) -> dict[str, float]:
    empty = len(gradient) == 0
    param_norm, grad_norm = parameter.norm().item(), gradient.norm().item()
    return {
        "grad_norm": grad_norm,
        "grad_rms": gradient.square().mean().sqrt().item(),
        "grad_mean": gradient.mean().item(),
        "grad_std": gradient.var(unbiased=False).sqrt().item() if not empty else float("nan"),
        "grad_abs_max": gradient.abs().max().item() if not empty else 0.0,
        "num_nonfinite": (~gradient.isfinite()).sum().item(),
        "zero_fraction": (gradient == 0).double().mean().item(),
        "param_norm": param_norm,
        "grad_ratio": ratio(grad_norm, param_norm),
    }


def ratio(numerator, denominator):
    return numerator / denominator if denominator > 0.0 else float("nan")


def assert_equal(
    frame, expected: Expected, *, rel: float, sampled_rel: float, sees_update: bool
) -> None:
    """Compare all that a frame says with what it should.

    Args:
        frame: What was seen.
        expected: What there was.
        rel: How far apart exact numbers may be.
        sampled_rel: How far apart sampled numbers may be.
        sees_update: Whether the monitor was told of the step before it was made.
    """
    assert (frame.step, frame.epoch, frame.batch_idx) == (
        expected.step,
        expected.epoch,
        expected.batch_idx,
    )
    assert frame.learning_rates == expected.learning_rates
    assert frame.world_size == expected.world_size
    # Of large tensors the CPU promises six digits.
    rels = {n: max(rel, 1e-6) if large else rel for n, large in expected.is_sampled.items()}
    rel = max(rels.values())
    norm = pytest.approx(expected.global_grad_norm, rel=rel, nan_ok=True)
    assert frame.global_grad_norm == norm
    assert frame.loss == pytest.approx(expected.loss, rel=1e-6, nan_ok=True)
    assert set(frame.layers) >= set(expected.layers)
    for row, layer in enumerate(frame.layers):
        if layer in expected.layers:
            _assert_exact_equal(frame, row, expected.layers[layer], rel=rels[layer])
            is_sampled = expected.is_sampled[layer]
            assert frame.is_sampled[row] == is_sampled
            tolerance = sampled_rel if is_sampled else rels[layer]
            _assert_sampled_equal(frame, row, expected, rel=tolerance, sees_update=sees_update)
        else:
            found = [getattr(frame, name)[row] for name in (*EXACT, *SAMPLED)]
            assert np.isnan(found).all(), (layer, found)
    if sees_update:
        _assert_clipping_equal(frame, expected)


def _assert_exact_equal(frame, row, expected, *, rel):
    for name in EXACT:
        # A mean may be small by cancelling out, but only as far as its terms are known.
        absolute = rel * expected["grad_rms"] if name == "grad_mean" else 0.0
        number = pytest.approx(expected[name], rel=rel, abs=absolute, nan_ok=True)
        assert getattr(frame, name)[row] == number, f"{name} of {frame.layers[row]}"


def _assert_sampled_equal(frame, row, expected, *, rel, sees_update):
    layer = frame.layers[row]
    is_sampled, counts = expected.is_sampled[layer], expected.histograms[layer]
    rel = rel if sees_update else 0.05  # the parameters are those after the step, then
    for name in SAMPLED:
        wanted = expected.layers[layer][name]
        if "update" in name and not sees_update:
            wanted = math.nan
        absolute = 0.03 if name == "zero_fraction" and is_sampled else 1e-12
        number = pytest.approx(wanted, rel=rel, abs=absolute, nan_ok=True)
        assert getattr(frame, name)[row] == number, f"{name} of {layer}"
    assert frame.log2_histogram is not None
    if is_sampled:
        assert np.abs(frame.log2_histogram[row] - counts).sum() < 0.3 * counts.sum()
    else:
        np.testing.assert_array_equal(frame.log2_histogram[row], counts)


def _assert_clipping_equal(frame, expected):
    after = expected.global_grad_norm_at_update
    assert frame.global_grad_norm_at_update == pytest.approx(after, rel=1e-6, nan_ok=True)
    if frame.clipped_fraction is None:
        assert expected.begins_clipping  # nobody looked, as nobody had clipped before
    else:
        tolerance = 0.03 if any(expected.is_sampled.values()) else 1e-9
        assert frame.clipped_fraction == pytest.approx(expected.clipped_fraction, abs=tolerance)
    before = expected.global_grad_norm / frame.window_correction
    if np.isfinite(before):
        coefficient = min(1.0, after / before) if before > 0.0 else 1.0
        assert frame.clip_coefficient == pytest.approx(coefficient, rel=1e-6)
