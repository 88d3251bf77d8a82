"""Alerts to more than a hundred services, by Apprise, which is an extra.

In: alerts. Out: notifications to the addresses that the environment or a file holds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from lightning_gradguard.alerts import text
from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import Level, severity_of
from lightning_gradguard.alerts.channels.several import Several
from lightning_gradguard.alerts.secret import Secret
from lightning_gradguard.findings import Severity
from lightning_gradguard.options import check_text

__all__ = ["Apprise"]

_TYPES: Final = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "failure",
    Severity.CRITICAL: "failure",
}
_TALKATIVE: Final = ("apprise", "urllib3", "urllib3.connectionpool", "requests")
_TIMES: Final = {"cto": "5", "rto": "5"}


class Apprise:
    """Notify by Apprise: Slack, Teams, Telegram, Discord and others.

    Args:
        urls_env: Name of the environment variable that holds Apprise's addresses, with space
            between them.
        urls_file: Name of a file that holds them; goes before the variable.
        min_severity: What is less severe is not for this channel.

    Raises:
        ImportError: Apprise is not installed.

    Source:
        https://github.com/caronc/apprise lists the services and how their addresses look.
    """

    def __init__(
        self,
        *,
        urls_env: str = "GRADGUARD_APPRISE_URLS",
        urls_file: str | None = None,
        min_severity: Level = "info",
    ) -> None:
        self.min_severity = severity_of(min_severity)
        check_text(urls_env=urls_env, urls_file=urls_file or "")
        _apprise()
        self._where = f"urls_env={urls_env!r}" if urls_file is None else f"urls_file={urls_file!r}"
        self._urls = Secret("the addresses for Apprise", urls_env, urls_file)
        self._several = Several()

    def __repr__(self) -> str:
        """Name where the addresses come from."""
        return f"Apprise({self._where})"

    def secrets(self) -> tuple[str, ...]:
        """Return what nobody may see.

        Raises:
            ValueError: There is no address, or Apprise does not know one of them.
        """
        urls = tuple(self._urls.read().split())
        _services(urls)
        return urls

    def send(self, alert: Alert) -> None:
        """Notify all addresses; after some could not be reached, those only."""
        services = _services(tuple(self._urls.read().split()))
        words = text.for_chat(text.title(alert)), text.for_chat(text.body(alert))
        kind = "success" if alert.state == "resolved" else _TYPES[alert.severity]
        left = self._several.left(alert, len(services))
        with _silent():
            later = {
                one: "could not be reached"
                for one in left
                if not services[one - 1].notify(title=words[0], body=words[1], notify_type=kind)
            }
        self._several.settle(len(services), later=later, never={})


def _services(urls: tuple[str, ...]) -> list[Any]:
    made = []
    for number, url in enumerate(urls, start=1):
        mark = "&" if "?" in url else "?"
        times = "&".join(f"{k}={v}" for k, v in _TIMES.items() if f"{k}=" not in url)
        made.append(_apprise().Apprise())
        with _silent():
            is_known = made[-1].add(f"{url}{mark}{times}")
        if not is_known:
            msg = f"Apprise does not know address {number} of {len(urls)}; see its list."
            raise ValueError(msg)
    return made


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the libraries' own logs, which hold addresses, to nobody."""
    before = [(one, one.disabled) for one in map(logging.getLogger, _TALKATIVE)]
    for one, _ in before:
        one.disabled = True
    try:
        yield
    finally:
        for one, was_disabled in before:
            one.disabled = was_disabled


def _apprise() -> Any:  # noqa: ANN401 - as above
    try:
        import apprise
    except ImportError as error:
        msg = "Apprise is not installed. Run pip install 'lightning-gradguard[alerts]'."
        raise ImportError(msg) from error
    return apprise
