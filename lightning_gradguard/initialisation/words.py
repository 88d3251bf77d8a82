"""The initialisation check in words, and as a table.

In: a `Preflight`. Out: a sentence, or lines of at most 80 columns. Nothing is decided here; what an
initialisation would do is said only where it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Final

from lightning_gradguard.findings import layer_phrase
from lightning_gradguard.initialisation.record import Preflight
from lightning_gradguard.initialisation.signal import (
    FEWEST_LAYERS,
    LayerSignal,
    Signal,
    is_too_much,
)

__all__ = ["lines", "verdict"]

_WIDTH: Final = 80
_NAME: Final = 27
_KIND: Final = 16
_MOST_ROWS: Final = 24
_ENDINGS: Final = {
    "training_step": "the loss of the model's own training step",
    "loss": "the loss that was given",
    "model": "the loss that the model returned",
    "random": "a random gradient of unit variance at the output",
}


def verdict(result: Preflight) -> str:
    """Say what becomes of the signal, and which initialisation was measured to keep it."""
    given = result.given
    if result.status == "kept":
        return f"the signal is kept: {_both(given)}"
    if result.status == "unknown":
        return _unknown(result)
    if result.status == "nonfinite":
        broken = [layer.name for layer in given.layers if not layer.is_finite]
        what = f"numbers are not finite at {layer_phrase(broken)}"
    elif result.status == "lost":
        what = " and ".join(_lost(given))
    else:
        what = " and ".join(_changes(given))
    return f"{what}; {_comparison(result)}"


def _unknown(result: Preflight) -> str:
    if result.given.status == "lost":
        what = f"nothing can be said of the weights as they are: those of {_zeros(result)} are zero"
        return f"{what}; {_comparison(result)}"
    count = len(result.given.judged)
    return (
        f"nothing can be said of depth: it takes {FEWEST_LAYERS} layers with a weight matrix, and "
        f"{count} {'was' if count == 1 else 'were'} called"
    )


def _zeros(result: Preflight) -> str:
    return layer_phrase(result.zero_layers)


def _both(signal: Signal) -> str:
    there, back = signal.forward_decades_per_layer, signal.backward_decades_per_layer
    return (
        f"{there:+.2f} decades per layer on the way to the loss, {back:+.2f} on the way back, over "
        f"{len(signal.judged)} layers"
    )


def _lost(signal: Signal) -> Iterator[str]:
    if signal.silent:
        names = [layer.name for layer in signal.silent]
        yield f"all examples look alike in the output of {layer_phrase(names)}"
    if signal.unreached:
        names = [layer.name for layer in signal.unreached]
        yield f"no gradient arrives at {layer_phrase(names)}"


def _changes(signal: Signal) -> Iterator[str]:
    both = (
        ("signal", signal.forward_decades_per_layer, signal.forward_decades, "to the loss"),
        ("gradient", signal.backward_decades_per_layer, signal.backward_decades, "to the input"),
    )
    for what, per_layer, in_all, where in both:
        if is_too_much(in_all):
            how = "shrinks" if in_all < 0.0 else "grows"
            yield (
                f"{what} {how} {abs(per_layer):.2f} decades per layer on its way {where} "
                f"({abs(in_all):.1f} in all)"
            )


def _comparison(result: Preflight) -> str:
    """Say what was measured with other weights, and promise nothing else."""
    if not result.alternatives:
        return "no other initialisation was measured"
    if result.keepers:
        best = result.keepers[0]
        names = " or ".join(signal.initialisation for signal in result.keepers)
        more = "" if len(result.keepers) == 1 else f"{best.initialisation}: "
        return f"{names} initialisation would keep it ({more}{_per_layer(best)}, measured)"
    if all(signal.status == "nonfinite" for signal in (result.given, *result.alternatives)):
        return "nor are they with any other initialisation: look at the batch and the loss"
    names = ", ".join(signal.initialisation for signal in result.alternatives)
    best = min(result.alternatives, key=lambda signal: signal.worst_decades)
    return (
        f"no initialisation that was measured keeps it ({names}; the best is "
        f"{best.initialisation}, {_per_layer(best)}): look at activation functions, norm, skips"
    )


def _per_layer(signal: Signal) -> str:
    there, back = signal.forward_decades_per_layer, signal.backward_decades_per_layer
    return f"{_number(there)} and {_number(back)}"


def lines(result: Preflight) -> Iterator[str]:
    """Yield the verdict, a row per layer, a row per initialisation, and the notes."""
    yield from wrap(f"gradguard preflight: {result.verdict}.", _WIDTH)
    yield ""
    yield f"  {'layer':{_NAME}} {'kind':{_KIND}} {'output':>9} {'signal':>9} {'gradient':>9}"
    yield from _rows(result.layers)
    yield ""
    yield f"  {'decades':{_NAME - 9}}  {'signal, to the loss':>22}  {'gradient, to the input':>22}"
    both = f"{'per layer':>12} {'in all':>9}"
    yield f"  {'weights':{_NAME - 9}}  {both}  {both}"
    for signal in (result.given, *result.alternatives):
        yield _signal_row(signal)
    yield ""
    yield from wrapped(
        "output: root mean square of what the layer puts out. signal: how far examples differ "
        "in it, 0 if by no more than rounding. gradient: root mean square with respect to it."
    )
    yield from wrapped(f"gradient from: {_ENDINGS[result.ending]}; seed {result.seed}")
    for note in result.notes:
        yield from wrapped(f"note: {note}.")


def wrapped(text: str) -> list[str]:
    """Return a sentence as indented lines."""
    return wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _rows(layers: Sequence[LayerSignal]) -> Iterator[str]:
    """Yield one row per layer; of many layers the first and the last."""
    if len(layers) <= _MOST_ROWS:
        yield from map(_row, layers)
        return
    half = _MOST_ROWS // 2
    yield from map(_row, layers[:half])
    yield f"  … {len(layers) - 2 * half} more …"
    yield from map(_row, layers[-half:])


def _row(layer: LayerSignal) -> str:
    numbers = (layer.forward_rms, layer.forward_std, layer.backward_rms)
    shown = " ".join(f"{_number(number, '.2e'):>9}" for number in numbers)
    kind = layer.kind if len(layer.kind) <= _KIND else f"{layer.kind[: _KIND - 1]}…"
    return f"  {_short(layer.name):{_NAME}} {kind:{_KIND}} {shown}"


def _signal_row(signal: Signal) -> str:
    there = f"{_number(signal.forward_decades_per_layer):>12} {_number(signal.forward_decades):>9}"
    back = f"{_number(signal.backward_decades_per_layer):>12} {_number(signal.backward_decades):>9}"
    return f"  {signal.initialisation:{_NAME - 9}}  {there}  {back}  {signal.status}"


def _number(number: float, form: str = "+.2f") -> str:
    return "-" if math.isnan(number) else f"{number:{form}}"


def _short(name: str) -> str:
    """Keep the end of a name, which tells layers apart."""
    return name if len(name) <= _NAME else f"…{name[-_NAME + 1 :]}"
