"""The tab costs a start of TensorBoard next to nothing, and loads nothing that may be missing."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest

from lightning_gradguard.history.storage import Entry, Storage
from tests.strategies import make_frame

OURS = {"lightning_gradguard", "tensorboard", "numpy"}

STARTED = """
import json, sys, time
from types import SimpleNamespace
from tensorboard import default, program

def loaded():
    return {name.partition(".")[0] for name in sys.modules}

before, marks = loaded(), []

def mark():
    marks.append([time.process_time(), sorted(loaded() - before)])

mark()
from lightning_gradguard.tensorboard_plugin.loader import GradientHealthLoader
mark()
flags = SimpleNamespace(logdir_spec="")
tab = GradientHealthLoader().load(SimpleNamespace(logdir=sys.argv[1], flags=flags))
apps = tab.get_plugin_apps()
tab.frontend_metadata()
mark()

def get(route, query=""):
    said = []
    body = b"".join(apps[route]({"QUERY_STRING": query}, lambda status, _: said.append(status)))
    assert said == ["200 OK"], body
    return body

(run,) = json.loads(get("/runs"))["runs"]
for route in ("/overview", "/heatmap", "/scalars", "/lines", "/histogram"):
    get(route, f"run={run}&statistic=grad_norm&layer=l0")
mark()
print(json.dumps(marks))
"""


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Start as TensorBoard does, and look at a run, three times: seconds and modules after each."""
    folder = tmp_path_factory.mktemp("logs")
    storage = Storage(folder / "version_0" / "gradguard" / "history.sqlite", about={})
    storage.write([Entry(make_frame(step)) for step in range(3)])
    storage.close("finished")
    command = [sys.executable, "-c", STARTED, str(folder)]
    return [json.loads(subprocess.check_output(command)) for _ in range(3)]  # noqa: S603 - ours


@pytest.mark.parametrize("mark", [1, 2, 3])
def test_the_tab_loads_tensorboard_numpy_and_the_standard_library_and_no_more(mark, starts):
    for marks in starts:
        more = set(marks[mark][1]) - OURS - set(sys.stdlib_module_names)
        assert more == set()
        assert "lightning_gradguard" in marks[mark][1]


def test_the_tab_takes_a_moment_of_the_start(starts):
    """About 0.05 s; CPU time and the middle of three do not measure the neighbours."""
    assert statistics.median(marks[2][0] - marks[0][0] for marks in starts) < 0.2


def test_to_be_named_to_tensorboard_takes_next_to_nothing(starts):
    """TensorBoard imports what it is pointed at even where nobody opens the tab."""
    assert statistics.median(marks[1][0] - marks[0][0] for marks in starts) < 0.05
