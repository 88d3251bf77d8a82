"""Names that leave the process are what the design fixed."""

from __future__ import annotations

from dataclasses import fields

from lightning_gradguard import schema
from lightning_gradguard.frame import Frame
from lightning_gradguard.scope import ROOT


def test_keys_are_those_of_the_design() -> None:
    assert schema.scalar_key("severity") == "gradguard/severity"
    assert schema.layer_key("grad_norm", "a.0") == "gradguard_layers/grad_norm/a.0"
    assert schema.histogram_key("a.0") == "gradguard_histograms/log2_abs_grad/a.0"


def test_a_second_optimizer_gets_keys_of_its_own() -> None:
    assert schema.scalar_key("severity", 1) == "gradguard/severity/optimizer_1"
    assert schema.layer_key("grad_norm", ROOT, 2).endswith("/(root)/optimizer_2")
    assert schema.histogram_key("a", 1).endswith("/a/optimizer_1")


def test_kinds_and_notices_are_those_of_the_design_and_share_no_name() -> None:
    assert set(schema.KINDS) == {
        "vanishing",
        "exploding",
        "nonfinite",
        "dead",
        "saturated",
        "not_learning",
        "diverging",
    }
    assert set(schema.NOTICES) == {
        "spike",
        "unused_parameters",
        "clip_dominated",
        "amp_overflow",
        "scheduler_drift",
    }


def test_there_are_eleven_scalars() -> None:
    assert len(set(schema.SCALARS)) == 11


def test_a_bin_per_octave_and_three_at_each_end() -> None:
    # Zeros, what bfloat16 flushes, other underflow; overflow, what bfloat16 cannot hold, broken.
    assert schema.HISTOGRAM_BINS == 3 + 128 + 3
    assert (schema.HISTOGRAM_FIRST, schema.HISTOGRAM_LAST) == (3, 130)


def test_frame_has_the_fields_of_the_design() -> None:
    names = {field.name for field in fields(Frame)} | {"update_ratio", "clip_coefficient"}
    assert names >= {
        "step",
        "epoch",
        "batch_idx",
        "optimizer_index",
        "loss",
        "learning_rates",
        "layers",
        "grad_norm",
        "grad_rms",
        "grad_abs_max",
        "zero_fraction",
        "num_nonfinite",
        "param_norm",
        "update_norm",
        "update_ratio",
        "log2_histogram",
        "global_grad_norm",
        "global_grad_norm_at_update",
        "clip_coefficient",
        "clipped_fraction",
        "lr_factor",
        "stepped",
    }
