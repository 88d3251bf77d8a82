"""Whether a layer without gradient is merely idle: experts to which nothing was routed.

In: a frame and a layer. Out: yes or no, from the names of its siblings and what they got.
"""

from __future__ import annotations

from lightning_gradguard.frame import Frame

__all__ = ["is_idle"]


def is_idle(frame: Frame, layer: str) -> bool:
    """Whether a layer without any gradient belongs to a branch that was not used.

    So it is with experts to which nothing was routed: a sibling, alike but for a number in its
    name, does get a gradient, and what comes next is no consumer of dead units, whose weights
    would be silent beside a bias that is not.
    """
    norms = dict(zip(frame.layers, frame.grad_norm.tolist(), strict=True))
    for branch in _numbered(layer):
        mine = [name for name in frame.layers if _is_within(name, branch)]
        if any(norms[name] > 0.0 for name in mine):
            continue
        stem = branch.rpartition(".")[0]
        siblings = {b for name in frame.layers for b in _numbered(name) if b != branch}
        alike = [b for b in siblings if b.rpartition(".")[0] == stem]
        works = any(norms[n] > 0.0 for n in frame.layers for b in alike if _is_within(n, b))
        after = frame.layers[frame.layers.index(mine[-1]) + 1 :]
        following = next((name for name in after if norms[name] > 0.0), None)
        silent = frame.silent_units.get(following) if following is not None else None
        if works and (silent is None or not silent.all()):
            return True
    return False


def _numbered(layer: str) -> list[str]:
    """Return the enclosing modules that are one of several by number, such as ``experts.3``."""
    parts = layer.split(".")
    return [".".join(parts[: i + 1]) for i, part in enumerate(parts) if part.isdecimal()]


def _is_within(layer: str, branch: str) -> bool:
    return layer == branch or layer.startswith(f"{branch}.")
