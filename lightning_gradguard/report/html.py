"""A report that opens anywhere: one HTML file, no network, drawn as the TensorBoard tab is.

In: runs. Out: a page with everything inside it. Its content security policy lets nothing run but
the scripts named there by hash, and nothing be fetched at all.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lightning_gradguard.findings import headline
from lightning_gradguard.history import view
from lightning_gradguard.report.files import whole_file

if TYPE_CHECKING:
    from lightning_gradguard.history import Run

__all__ = ["render_report", "write_report"]

_STATISTICS: Final = ("grad_norm", "update_ratio", "grad_abs_max")
"""What is drawn: each costs about 3 MB for 400 layers, so not everything is."""

_MOST_HISTOGRAMS: Final = 48
_MODULES: Final = (
    *("decode", "source", "colour", "dom", "groups", "link"),
    *("heatmap", "charts", "findings", "controls", "maps", "layer", "run", "app"),
)
_START: Final = """
const page = JSON.parse(document.getElementById("gradguard-data").textContent);
startApp(document.getElementById("gradguard"), inlineSource(page), {report: true});
"""
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript><pre>{text}</pre></noscript>
<main id="gradguard"></main>
<footer class="gg">{environment}</footer>
<script type="application/json" id="gradguard-data">{data}</script>
<script>{library}</script>
<script type="module">{program}</script>
</body>
</html>
"""


def write_report(runs: Sequence[Run], path: str | Path) -> None:
    """Write a report about one run, or several side by side.

    The file is replaced as a whole: a reader never sees half of it.

    Args:
        runs: At least one.
        path: The file to write.

    Raises:
        ValueError: If there is no run.
        OSError: If the file cannot be written.
    """
    page = render_report(runs).encode("utf-8", "backslashreplace")
    with whole_file(Path(path)) as part:
        part.write_bytes(page)


def render_report(runs: Sequence[Run]) -> str:
    """Return the page of `write_report`.

    Raises:
        ValueError: If there is no run.
    """
    if not runs:
        msg = "a report needs at least one run"
        raise ValueError(msg)
    names = _names(runs)
    overviews, packs = [], {}
    for name, run in zip(names, runs, strict=True):
        shown: list[str] = [one for one in _STATISTICS if one in run.statistics]
        shown = shown or list(run.statistics[:1])
        overviews.append({**view.overview(run), "name": name, "statistics": shown})
        for key, data in _packs(run, shown):
            text = json.dumps([key[0], name, *key[1:]], separators=(",", ":"), ensure_ascii=False)
            packs[text] = base64.b64encode(data).decode()
    library = _asset("uplot.js")
    program = _program() + _START
    style = _asset("uplot.css") + _asset("style.css")
    policy = (
        f"default-src 'none'; script-src {_hash(library)} {_hash(program)}; "
        f"style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    return _PAGE.format(
        policy=policy,
        title=html.escape("Gradient health: " + ", ".join(names)),
        style=style,
        text=html.escape("\n".join(_text(runs, names))),
        environment="<br>".join(map(html.escape, _environment(runs, names))),
        data=_harmless(json.dumps({"overviews": overviews, "packs": packs}, allow_nan=False)),
        library=library,
        program=program,
    )


def _packs(run: Run, statistics: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], bytes]]:
    """Yield the keys by which the page's script asks, without the run's name, and the bytes."""
    for index in run.optimizers:
        yield ("scalars", index), view.scalars(run, index)
        for name in statistics:
            for relative in ("none", "last"):
                drawn = view.heatmap(run, name, index, relative=relative)
                yield ("heatmap", name, relative, index), drawn
        for layer in run.time_profiles(index):
            yield ("over_time", layer, index), view.over_time(run, layer, index, columns=100)
        for layer in _worth_a_histogram(run, index):
            drawn = view.histogram(run, layer, index, columns=100)
            yield ("histogram", layer, index), drawn


def _worth_a_histogram(run: Run, index: int) -> list[str]:
    """Name layers that findings are about, then others, evenly spread over the depth."""
    layers = run.layers(index)
    concerned = {name for f in run.findings if f.optimizer_index == index for name in f.layers}
    flagged = [name for name in layers if name in concerned][:_MOST_HISTOGRAMS]
    others = [name for name in layers if name not in concerned]
    room = _MOST_HISTOGRAMS - len(flagged)
    every = max(1, -(-len(others) // room)) if room else len(others) + 1
    return [*flagged, *others[::every][:room]]


def _names(runs: Sequence[Run]) -> list[str]:
    """Name runs so that no two share a name."""
    names: list[str] = []
    for run in runs:
        name, count = run.name, 2
        while name in names:
            name, count = f"{run.name} ({count})", count + 1
        names.append(name)
    return names


def _text(runs: Sequence[Run], names: Sequence[str]) -> Iterator[str]:
    for name, run in zip(names, runs, strict=True):
        yield f"{name}: {len(run.findings)} findings"
        yield from (headline(finding) for finding in run.findings)


def _environment(runs: Sequence[Run], names: Sequence[str]) -> Iterator[str]:
    """Say of each run when and with what it was trained, and what watching took."""
    for name, run in zip(names, runs, strict=True):
        parts = [*_begun(run.meta.get("created"))]
        parts += [str(run.meta["model"])] if run.meta.get("model") else []
        versions = run.meta.get("versions")
        if isinstance(versions, Mapping):
            parts.append(", ".join(f"{key} {value}" for key, value in versions.items()))
        parts += _cost(run)
        yield f"{name}: {' · '.join(parts)}"


def _begun(created: object) -> list[str]:
    """Read a time of the file's, which may hold anything."""
    try:
        begun = datetime.fromtimestamp(float(str(created)), timezone.utc)
    except (ValueError, OverflowError, OSError):
        return []
    return [f"begun {begun:%Y-%m-%d %H:%M} UTC"]


def _cost(run: Run) -> list[str]:
    if "overhead_ms" not in run.scalars or not run.optimizers:
        return []
    known = [ms for ms in run.scalar("overhead_ms", run.optimizers[0]).tolist() if ms == ms]  # noqa: PLR0124 - NaN
    return [f"watching took {known[-1]:.3g} ms per step"] if known else []


def _program() -> str:
    """Join the tab's modules into one script: their top-level names differ, which a test checks."""
    parts = []
    for name in _MODULES:
        text = re.sub(r"^import [^;]*;\n", "", _asset(f"{name}.js"), flags=re.MULTILINE)
        parts.append(re.sub(r"^export ", "", text, flags=re.MULTILINE))
    return "\n".join(parts)


def _asset(name: str) -> str:
    folder = resources.files("lightning_gradguard.tensorboard_plugin") / "static"
    return (folder / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _harmless(text: str) -> str:
    """Keep what a script element holds from ending it."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
