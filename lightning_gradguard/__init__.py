"""Diagnose gradients while Lightning trains.

Importing this package loads neither torch nor Lightning: public names are resolved when they
are first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lightning_gradguard import alerts as alerts
    from lightning_gradguard import detectors as detectors
    from lightning_gradguard import remedies as remedies
    from lightning_gradguard import sinks as sinks
    from lightning_gradguard.audit import Action as Action
    from lightning_gradguard.callbacks import GradientGuard as GradientGuard
    from lightning_gradguard.callbacks import GradientMonitor as GradientMonitor
    from lightning_gradguard.detectors import Detector as Detector
    from lightning_gradguard.findings import Finding as Finding
    from lightning_gradguard.findings import Severity as Severity
    from lightning_gradguard.frame import Frame as Frame
    from lightning_gradguard.history import load_run as load_run
    from lightning_gradguard.initialisation import Preflight as Preflight
    from lightning_gradguard.initialisation import preflight as preflight
    from lightning_gradguard.inspector import Inspector as Inspector
    from lightning_gradguard.probe import Probe as Probe
    from lightning_gradguard.remedies import Remedy as Remedy
    from lightning_gradguard.sinks import Sink as Sink

__version__ = "0.1.0"

_HOMES: Final = {
    "Action": "lightning_gradguard.audit",
    "Detector": "lightning_gradguard.detectors",
    "Finding": "lightning_gradguard.findings",
    "Frame": "lightning_gradguard.frame",
    "GradientGuard": "lightning_gradguard.callbacks.guard",
    "GradientMonitor": "lightning_gradguard.callbacks.monitor",
    "Inspector": "lightning_gradguard.inspector",
    "Preflight": "lightning_gradguard.initialisation",
    "Probe": "lightning_gradguard.probe",
    "Remedy": "lightning_gradguard.remedies",
    "Severity": "lightning_gradguard.findings",
    "Sink": "lightning_gradguard.sinks",
    "load_run": "lightning_gradguard.history",
    "preflight": "lightning_gradguard.initialisation",
}
_NAMESPACES: Final = ("alerts", "detectors", "remedies", "sinks")

__all__ = [
    "Action",
    "Detector",
    "Finding",
    "Frame",
    "GradientGuard",
    "GradientMonitor",
    "Inspector",
    "Preflight",
    "Probe",
    "Remedy",
    "Severity",
    "Sink",
    "alerts",
    "detectors",
    "load_run",
    "preflight",
    "remedies",
    "sinks",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name in _NAMESPACES:
        return import_module(f"lightning_gradguard.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module 'lightning_gradguard' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
