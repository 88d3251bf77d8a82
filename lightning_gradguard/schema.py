"""Every name that leaves the process: statistics, logged keys, kinds of finding.

In: nothing. Out: constants and the functions that build logged keys. Other modules never
spell such a name themselves, so that this table and the documentation can be compared.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = [
    "BFLOAT16_HIGH",
    "BFLOAT16_LOW",
    "COMMAND_LINE_VERSION",
    "FLOAT16_HIGH",
    "FLOAT16_LOW",
    "HISTOGRAM_BINS",
    "HISTOGRAM_FIRST",
    "HISTOGRAM_HIGH",
    "HISTOGRAM_LAST",
    "HISTOGRAM_LOW",
    "KINDS",
    "NOTICES",
    "SCALARS",
    "Kind",
    "Notice",
    "histogram_key",
    "layer_key",
    "scalar_key",
]

Kind = Literal[
    "nonfinite", "exploding", "vanishing", "dead", "saturated", "diverging", "not_learning"
]
"""What can be wrong, causes before symptoms: a summary names them in this order."""

Notice = Literal["spike", "unused_parameters", "clip_dominated", "amp_overflow", "scheduler_drift"]
"""What is worth knowing but never an alarm."""

KINDS: Final[tuple[str, ...]] = get_args(Kind)
NOTICES: Final[tuple[str, ...]] = get_args(Notice)

SCALARS: Final = (
    "global_grad_norm",
    "global_grad_norm_at_update",
    "clip_coefficient",
    "guard_clip_coefficient",
    "lr_factor",
    "num_nonfinite",
    "update_ratio_median",
    "noise_scale",
    "layers_flagged",
    "severity",
    "overhead_ms",
)
"""The logged numbers of one optimizer step."""

COMMAND_LINE_VERSION: Final = "gradguard.cli/1"
"""Under which rules the command line writes JSON: a name is never taken away within a number."""

HISTOGRAM_LOW: Final = -96
"""Smallest octave of the histogram: its bin counts ``2**-96 <= |g| < 2**-95``."""

HISTOGRAM_HIGH: Final = 32
"""End of the octaves, exclusive."""

HISTOGRAM_FIRST: Final = 3
"""Column of the smallest octave. Before it: zeros, what bfloat16 flushes, other underflow."""

HISTOGRAM_LAST: Final = HISTOGRAM_FIRST + HISTOGRAM_HIGH - HISTOGRAM_LOW - 1
"""Column of the largest octave. After it: overflow, what bfloat16 cannot hold, non-finite."""

HISTOGRAM_BINS: Final = HISTOGRAM_LAST + 4
"""Number of columns."""

FLOAT16_LOW: Final = -25
"""Magnitudes below this power of two become zero in float16."""

FLOAT16_HIGH: Final = 16
"""Magnitudes from this power of two on become infinite in float16."""

BFLOAT16_LOW: Final = -134
"""The same for bfloat16, whose exponents are those of float32."""

BFLOAT16_HIGH: Final = 128
"""The same for bfloat16."""


def scalar_key(name: str, optimizer_index: int = 0) -> str:
    """Return the logged key of a number that describes the whole step.

    Args:
        name: One of `SCALARS`.
        optimizer_index: Position of the optimizer; only a second one adds a suffix.

    Example:
        >>> scalar_key("global_grad_norm")
        'gradguard/global_grad_norm'
        >>> scalar_key("global_grad_norm", optimizer_index=1)
        'gradguard/global_grad_norm/optimizer_1'
    """
    return f"gradguard/{name}{_suffix(optimizer_index)}"


def layer_key(statistic: str, layer: str, optimizer_index: int = 0) -> str:
    """Return the logged key of one layer's statistic.

    Args:
        statistic: A per-layer field of `Frame`, such as ``grad_norm``.
        layer: Name of the layer, as in ``Frame.layers``.
        optimizer_index: Position of the optimizer; only a second one adds a suffix.

    Example:
        >>> layer_key("grad_norm", "encoder.0")
        'gradguard_layers/grad_norm/encoder.0'
    """
    return f"gradguard_layers/{statistic}/{layer}{_suffix(optimizer_index)}"


def histogram_key(layer: str, optimizer_index: int = 0) -> str:
    """Return the logged key of one layer's histogram of log2 magnitudes.

    Example:
        >>> histogram_key("encoder.0")
        'gradguard_histograms/log2_abs_grad/encoder.0'
    """
    return f"gradguard_histograms/log2_abs_grad/{layer}{_suffix(optimizer_index)}"


def _suffix(optimizer_index: int) -> str:
    return f"/optimizer_{optimizer_index}" if optimizer_index else ""
