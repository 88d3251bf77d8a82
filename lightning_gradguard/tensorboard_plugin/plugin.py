"""The tab's server side: a handful of routes that read histories, and the files of the page.

Imports only TensorBoard, numpy and the standard library, and what of ours needs no more. Read-only.
Each request opens the history anew, so that a page sees what a live run has written since.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qs

from tensorboard.plugins import base_plugin

from lightning_gradguard.history import view
from lightning_gradguard.tensorboard_plugin.folders import Folders

if TYPE_CHECKING:
    from lightning_gradguard.history import Run

__all__ = ["GradientHealth"]

T = TypeVar("T")

_TYPES: Final = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
}
_JSON: Final = "application/json; charset=utf-8"
_BYTES: Final = "application/octet-stream"

Answer = tuple[str, str, bytes]
"""Status, content type and body."""


class GradientHealth(base_plugin.TBPlugin):  # type: ignore[misc]
    """The tab "Gradient health".

    Args:
        context: TensorBoard's `TBContext`; its ``flags`` say where the logs are.
    """

    plugin_name = "gradguard"

    def __init__(self, context: Any) -> None:  # noqa: ANN401 - TensorBoard has no types
        flags = getattr(context, "flags", None)
        spec = getattr(flags, "logdir_spec", "") or ""
        self._folders = Folders(getattr(context, "logdir", "") or "", spec)

    def is_active(self) -> bool:
        """Whether there is a run to show; where our marker is, TensorBoard does not ask."""
        return self._folders.has_runs()

    def frontend_metadata(self) -> Any:  # noqa: ANN401 - as above
        """Say what TensorBoard shows and loads."""
        return base_plugin.FrontendMetadata(
            es_module_path="/static/index.js", tab_name="Gradient health"
        )

    def get_plugin_apps(self) -> Mapping[str, Any]:
        """Return the routes, beneath ``/data/plugin/gradguard``."""
        answers: dict[str, Callable[[Any], Answer]] = {
            "/runs": self._runs,
            "/overview": self._overview,
            "/heatmap": self._heatmap,
            "/lines": self._lines,
            "/scalars": self._scalars,
            "/histogram": self._histogram,
            "/over_time": self._over_time,
        }
        apps = {route: partial(_serve, answer) for route, answer in answers.items()}
        for name in _page():
            apps[f"/static/{name}"] = partial(_serve, partial(_file, name))
        return apps

    def _runs(self, _query: Mapping[str, str]) -> Answer:
        runs = list(self._folders.runs(fresh=True))
        latest, message = self._folders.latest(), self._folders.message
        return _json({"runs": runs, "latest": latest, "message": message})

    def _overview(self, query: Mapping[str, str]) -> Answer:
        return _json(self._of_run(query, view.overview) | {"name": query["run"]})

    def _heatmap(self, query: Mapping[str, str]) -> Answer:
        first, last = _span(query)
        draw = partial(
            view.heatmap,
            statistic=query["statistic"],
            optimizer_index=int(query.get("optimizer", 0)),
            relative=query.get("relative", "none"),
            columns=int(query.get("columns", 600)),
            first=first,
            last=last,
        )
        return "200 OK", _BYTES, self._of_run(query, draw)

    def _lines(self, query: Mapping[str, str]) -> Answer:
        first, last = _span(query)
        return self._of_layer(query, partial(view.lines, first=first, last=last))

    def _histogram(self, query: Mapping[str, str]) -> Answer:
        return self._of_layer(query, view.histogram)

    def _over_time(self, query: Mapping[str, str]) -> Answer:
        return self._of_layer(query, view.over_time)

    def _of_layer(self, query: Mapping[str, str], draw: Callable[..., bytes]) -> Answer:
        index = int(query.get("optimizer", 0))
        draw = partial(draw, layer=query["layer"], optimizer_index=index)
        return "200 OK", _BYTES, self._of_run(query, draw)

    def _scalars(self, query: Mapping[str, str]) -> Answer:
        index, (first, last) = int(query.get("optimizer", 0)), _span(query)
        draw = partial(view.scalars, optimizer_index=index, first=first, last=last)
        return "200 OK", _BYTES, self._of_run(query, draw)

    def _of_run(self, query: Mapping[str, str], draw: Callable[[Run], T]) -> T:
        from lightning_gradguard.history import load_run

        path = self._folders.runs().get(query["run"])
        if path is None:
            msg = f"There is no run {query['run']!r} here."
            raise ValueError(msg)
        with load_run(path) as run:
            return draw(run)


def _span(query: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return the first and the last step asked for."""
    first, last = (int(query[key]) if query.get(key) else None for key in ("first", "last"))
    return first, last


def _page() -> list[str]:
    """Name the files of the page: only these are served, so no request can leave their folder."""
    folder = resources.files(__package__) / "static"
    return sorted(f.name for f in folder.iterdir() if f.name.rpartition(".")[2] in _TYPES)


def _file(name: str, _query: Mapping[str, str]) -> Answer:
    body = (resources.files(__package__) / "static" / name).read_bytes()
    return "200 OK", _TYPES[name.rpartition(".")[2]], body


def _json(value: object) -> Answer:
    return "200 OK", _JSON, json.dumps(view.plain(value), allow_nan=False).encode()


def _serve(
    answer: Callable[[Any], Answer],
    environ: Mapping[str, Any],
    start_response: Callable[[str, list[tuple[str, str]]], object],
) -> Iterable[bytes]:
    """Answer one WSGI request; whatever goes wrong becomes a message for the page."""
    parsed = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    query = {key: values[-1] for key, values in parsed.items()}
    try:
        status, kind, body = answer(query)
    except KeyError as error:
        status, kind, body = _refused(f"the request lacks {error}")
    except Exception as error:  # noqa: BLE001 - else TensorBoard answers with a traceback
        status, kind, body = _refused(str(error) or type(error).__name__)
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    ]
    start_response(status, headers)
    return [body]


def _refused(message: str) -> Answer:
    return "400 Bad Request", _JSON, json.dumps({"error": message}).encode()
