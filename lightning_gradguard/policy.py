"""From what a person asks for to remedies.

In: short names, as in ``clip="robust"`` or ``on_nonfinite="skip"``. Out: the remedies they stand
for. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Literal, TypeAlias

from lightning_gradguard.remedies.agc import AGC
from lightning_gradguard.remedies.autoclip import AutoClip
from lightning_gradguard.remedies.base import Remedy
from lightning_gradguard.remedies.clip_norm import ClipNorm
from lightning_gradguard.remedies.clip_value import ClipValue
from lightning_gradguard.remedies.limit_updates import LimitUpdates
from lightning_gradguard.remedies.once_slowed import OnceSlowed
from lightning_gradguard.remedies.only import Only
from lightning_gradguard.remedies.reduce_lr import ReduceLearningRate
from lightning_gradguard.remedies.robust import Robust
from lightning_gradguard.remedies.rollback import Rollback
from lightning_gradguard.remedies.skip_loss_spike import SkipLossSpike
from lightning_gradguard.remedies.skip_nonfinite import SkipNonFinite
from lightning_gradguard.remedies.skip_outlier import SkipOutlier
from lightning_gradguard.remedies.stop import StopTraining
from lightning_gradguard.remedies.traits import acts_of, unwrapped
from lightning_gradguard.remedies.zclip import ZClip

__all__ = ["CLIPPERS", "Clip", "Response", "auto_policy", "check_traits", "clippers", "responses"]

Clip: TypeAlias = float | str | Remedy | Mapping[str, "float | str | Remedy"]
"""A largest norm, a clipper's name, a clipper, or one of these for each glob of layers.

Numbers first: a command line takes the first type that fits, and any number is a text, too.
"""

Response = Literal["skip", "reduce_lr", "rollback", "stop", "raise"]
"""What to do about a fault."""

CLIPPERS: Final[Mapping[str, Callable[[], Remedy]]] = {
    "norm": ClipNorm,
    "value": ClipValue,
    "autoclip": AutoClip,
    "zclip": ZClip,
    "agc": AGC,
    "robust": Robust,
}
"""Clippers by name, with their default settings."""

_LATE: Final[Mapping[str, Callable[[str], Remedy]]] = {
    "reduce_lr": ReduceLearningRate,
    "rollback": Rollback,
    "stop": StopTraining,
    "raise": lambda kind: StopTraining(kind, as_error=True),
}

_SKIPS: Final[Mapping[str, Callable[[], Remedy]]] = {
    "nonfinite": SkipNonFinite,
    "exploding": SkipOutlier,
    "loss_spike": SkipLossSpike,
}


def clippers(clip: Clip | None) -> list[Remedy]:
    """Return the clippers that are asked for.

    Args:
        clip: See `Clip`. Of several globs that match a layer, the first holds.

    Raises:
        ValueError: There is no such clipper, or a norm is not positive.
        TypeError: It is none of these.

    Example:
        >>> clippers({"critic.*": "agc", "*": 1.0})[1].remedy.max_norm
        1.0
    """
    if clip is None:
        return []
    if not isinstance(clip, Mapping):
        return [_clipper(clip)]
    _check_globs("clip", clip, "agc")
    globs = list(clip)
    return [
        Only(glob, _clipper(wanted), exclude=globs[:i])
        for i, (glob, wanted) in enumerate(clip.items())
    ]


def _check_globs(argument: str, wanted: Mapping[Any, object], example: str) -> None:
    as_in = f'as in {{"critic.*": "{example}"}}'
    if not wanted:
        msg = f"`{argument}` must name at least one glob of layers, {as_in}, got {{}}."
        raise ValueError(msg)
    for glob in wanted:
        if not isinstance(glob, str):
            msg = f"`{argument}` must have globs of layers as keys, {as_in}, got {glob!r}."
            raise TypeError(msg)


def _clipper(clip: str | float | Remedy) -> Remedy:
    if isinstance(clip, str):
        if clip not in CLIPPERS:
            names = ", ".join(map(repr, CLIPPERS))
            msg = f"`clip` must be one of {names}, a largest norm or a remedy, got {clip!r}."
            raise ValueError(msg)
        return CLIPPERS[clip]()
    if isinstance(clip, (int, float)) and not isinstance(clip, bool):
        return ClipNorm(float(clip))
    if callable(getattr(clip, "decide", None)) and not isinstance(clip, type):
        if "clip" not in acts_of(clip):
            name = type(clip).__name__
            msg = f"`clip` must be a remedy that clips, got {name}. Give it to `remedies`."
            raise ValueError(msg)
        return clip  # type: ignore[return-value]  # it has the one method
    msg = f"`clip` must be a name, a largest norm, a remedy or a dict of these, got {clip!r}."
    raise TypeError(msg)


def responses(
    fault: str, wanted: str | Mapping[str, str | None] | None, choices: Sequence[str]
) -> list[Remedy]:
    """Return the remedies for a fault.

    Args:
        fault: A kind of finding, or ``"loss_spike"``.
        wanted: One of the choices, or one for each glob of layers; None is nothing.
        choices: What can be done about this fault.

    Raises:
        ValueError: It is not among the choices.

    Example:
        >>> responses("nonfinite", "skip", ["skip", "stop"])[0].__class__.__name__
        'SkipNonFinite'
        >>> responses("nonfinite", "ignore", ["skip", "stop"])
        Traceback (most recent call last):
        ValueError: `on_nonfinite` must be one of 'skip', 'stop', got 'ignore'.
    """
    if wanted is None:
        return []
    if isinstance(wanted, Mapping):
        _check_globs(f"on_{fault}", wanted, "skip")
        globs = list(wanted)
        return [
            Only(glob, _response(fault, answer, choices), exclude=globs[:i])
            for i, (glob, answer) in enumerate(wanted.items())
            if answer is not None
        ]
    return [_response(fault, wanted, choices)]


def _response(fault: str, wanted: str, choices: Sequence[str]) -> Remedy:
    if wanted not in choices:
        names = ", ".join(map(repr, choices))
        msg = f"`on_{fault}` must be one of {names}, got {wanted!r}."
        raise ValueError(msg)
    return _SKIPS[fault]() if wanted == "skip" else _LATE[wanted](fault)


def check_traits(remedies: Sequence[Remedy], may_find: Callable[[str], bool]) -> None:
    """Raise if a remedy does what nobody can, or waits for what nobody reports.

    The second would look like a protection.

    Args:
        remedies: Also looked at inside of others.
        may_find: Whether a kind of finding may be reported at all.

    Raises:
        ValueError: Its ``acts`` are none, or none of its ``kinds`` may be reported.
    """
    for remedy in chain.from_iterable(map(unwrapped, remedies)):
        acts_of(remedy)
        kinds = getattr(remedy, "kinds", ())
        if isinstance(kinds, tuple) and kinds and not any(map(may_find, kinds)):
            msg = (
                f"{type(remedy).__name__} must have something to act on, but nothing here reports "
                f"{' or '.join(map(repr, kinds))}. Look at `detectors` and `ignore`."
            )
            raise ValueError(msg)


def auto_policy() -> list[Remedy]:
    """Return what a user without opinions gets; the reasons are in ``docs/acting.md``.

    - A batch of NaN is left out.
    - A gradient far beyond the latest ones is clipped to what is usual.
    - The first step is a hundredth of a full one. From then on steps are held back where the last
      ones changed the median layer by more than a tenth, or by more than a twentieth each for long.
    - Where training explodes, diverges, stays non-finite or kills units, it goes back to before
      that and on with a tenth of the rate, again and again if need be.
    - From the first such cut on, the gradient norm is held at 1, since the weights may be too
      large as well as the rate.
    - A rate that never worked stays low for a thousand quiet steps. Where training had gone well
      before, it is given back after twenty.
    """
    faults = ("exploding", "diverging", "nonfinite", "dead")
    rate = ReduceLearningRate(
        faults, factor=0.1, cooldown_steps=5, recovery_steps=20, early_recovery_steps=1000
    )
    return [
        SkipNonFinite(),
        Robust(z_threshold=5.0, ceiling=0.2),
        LimitUpdates(),
        OnceSlowed(ClipNorm(1.0), below=0.2),
        Rollback(faults, max_rollbacks=8, rate=rate),
    ]
