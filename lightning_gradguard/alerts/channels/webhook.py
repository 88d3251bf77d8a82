"""Alerts as JSON, posted to an address.

In: alerts. Out: one POST each, with the JSON of `Alert.to_dict` and the words that people read.
"""

from __future__ import annotations

import json

from lightning_gradguard.alerts import http, text
from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import Level, severity_of
from lightning_gradguard.alerts.secret import Secret
from lightning_gradguard.options import check_positive, check_text

__all__ = ["Webhook"]


class Webhook:
    """Post alerts to an address that is in the environment or in a file.

    The JSON holds every field of `Alert`, and ``title`` and ``text``, which is what Slack's,
    Mattermost's and Rocket.Chat's incoming webhooks show.

    Args:
        url_env: Name of the environment variable that holds the address.
        url_file: Name of a file that holds it; goes before the variable.
        timeout_seconds: How long the other side may take for each part of its answer.
        min_severity: What is less severe is not for this channel.

    Example:
        >>> Webhook()
        Webhook(url_env='GRADGUARD_WEBHOOK_URL')
    """

    def __init__(
        self,
        *,
        url_env: str = "GRADGUARD_WEBHOOK_URL",
        url_file: str | None = None,
        timeout_seconds: float = 5.0,
        min_severity: Level = "info",
    ) -> None:
        self.min_severity = severity_of(min_severity)
        check_text(url_env=url_env, url_file=url_file or "")
        check_positive(timeout_seconds=timeout_seconds)
        self._where = f"url_env={url_env!r}" if url_file is None else f"url_file={url_file!r}"
        self._timeout = timeout_seconds
        self._url = Secret("the webhook's address", url_env, url_file)

    def __repr__(self) -> str:
        """Name where the address comes from."""
        return f"Webhook({self._where})"

    def secrets(self) -> tuple[str, ...]:
        """Return what nobody may see.

        Raises:
            ValueError: There is no address, or it is none.
        """
        address = self._url.read()
        http.check_address("The webhook's address", address)
        return (address,)

    def send(self, alert: Alert) -> None:
        """Post one alert."""
        (address,) = self.secrets()
        title, words = text.for_chat(text.title(alert)), text.for_chat(text.body(alert))
        told = {**alert.to_dict(), "title": title, "text": f"{title}\n{words}"}
        body = json.dumps(told, allow_nan=False).encode()
        http.request(address, body, timeout=self._timeout)
