"""Lightning's callbacks: one that looks, one that may act. Nothing else here knows Lightning."""

from lightning_gradguard.callbacks.guard import GradientGuard
from lightning_gradguard.callbacks.monitor import GradientMonitor

__all__ = ["GradientGuard", "GradientMonitor"]
