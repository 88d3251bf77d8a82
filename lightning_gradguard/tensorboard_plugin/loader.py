"""What TensorBoard's entry point names: makes the tab, or does without it.

An exception here would keep TensorBoard from starting, so a fault of ours only costs the tab.
"""

from __future__ import annotations

import logging
from typing import Any

from tensorboard.plugins import base_plugin

__all__ = ["GradientHealthLoader"]


class GradientHealthLoader(base_plugin.TBLoader):  # type: ignore[misc]
    """Makes the tab when TensorBoard asks for it."""

    def load(self, context: Any) -> Any:  # noqa: ANN401 - TensorBoard has no types
        """Return the tab, or None if it cannot work here.

        Args:
            context: A `tensorboard.plugins.base_plugin.TBContext`.
        """
        try:
            from lightning_gradguard.tensorboard_plugin.plugin import GradientHealth

            return GradientHealth(context)
        except (Exception, SystemExit):
            logging.getLogger(__name__).exception("the tab 'Gradient health' is missing")
            return None
