"""What a person says about alerts: who is told, of what, how often.

In: arguments. Out: a running `Desk`. Holds no secret, thread or socket itself, so that it can be
copied, pickled, printed and written into a configuration.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import quote

from lightning_gradguard.alerts import http
from lightning_gradguard.alerts.alert import Alert, fresh_name
from lightning_gradguard.alerts.base import Channel, Level, severity_of
from lightning_gradguard.alerts.channels.apprise import Apprise
from lightning_gradguard.alerts.channels.log import Log
from lightning_gradguard.alerts.channels.trackers import MLflow, WandB
from lightning_gradguard.alerts.channels.webhook import Webhook
from lightning_gradguard.alerts.desk import Desk
from lightning_gradguard.alerts.incidents import Incidents
from lightning_gradguard.alerts.outbox import Outbox
from lightning_gradguard.alerts.pulse import Pulse
from lightning_gradguard.alerts.scrub import scrubber
from lightning_gradguard.alerts.secret import Secret
from lightning_gradguard.alerts.watch import Heartbeat, Watchdog
from lightning_gradguard.options import check_choice, check_count, check_parts, check_positive

__all__ = ["Alerts", "AlertsLike", "ChannelName"]

_log: Final = logging.getLogger("lightning_gradguard.alerts")

_MOST_CHARACTERS: Final = 4000
_MOST_LAYERS: Final = 1000

ChannelName = Literal["log", "webhook", "apprise", "wandb", "mlflow"]

_BY_NAME: Final[Mapping[str, Callable[[], Channel]]] = {
    "log": Log,
    "webhook": Webhook,
    "apprise": Apprise,
    "wandb": WandB,
    "mlflow": MLflow,
}


class Alerts:
    """Who is told, of what, and how often.

    Args:
        to: Channels, by name or as objects; your own is an object with a method ``send(alert)``.
        min_severity: What is less severe is not told. A channel with an attribute
            ``min_severity`` of its own is told less.
        cooldown_minutes: How long nothing more is said of an incident, unless it gets worse.
        settle_steps: Optimizer steps for which a fault must stay away to count as ended.
        most_per_hour: Messages in any hour, of all incidents together.
        stalled_after_seconds: An alarm if no batch is completed for so long after the first one;
            None for no such alarm. Validation counts as batches.
        heartbeat_url_env: Name of an environment variable with an address that is asked for every
            ``heartbeat_seconds`` while training advances; None for no heartbeat.
        heartbeat_seconds: From one ping to the next.
        tab_url: Address of TensorBoard, such as ``"http://gpu7:6006"``, for links in messages.
        flush_seconds: How long the end of a training waits for messages to be sent.

    Raises:
        ValueError: An argument has a wrong value.
        TypeError: A channel has no method ``send``.

    Cost:
        Less than 50 microseconds per event in the training thread, whatever the network does.

    Example:
        >>> Alerts(to=["log", "webhook"], min_severity="error")
        Alerts(to=[Log(), Webhook(url_env='GRADGUARD_WEBHOOK_URL')])
    """

    def __init__(
        self,
        to: Sequence[Channel | ChannelName] | Channel | ChannelName = ("log",),
        *,
        min_severity: Level = "warning",
        cooldown_minutes: float = 30.0,
        settle_steps: int = 100,
        most_per_hour: int = 20,
        stalled_after_seconds: float | None = None,
        heartbeat_url_env: str | None = None,
        heartbeat_seconds: float = 60.0,
        tab_url: str | None = None,
        flush_seconds: float = 10.0,
    ) -> None:
        named = [to] if isinstance(to, str) or hasattr(to, "send") else list(to)
        for one in named:
            if isinstance(one, str):
                _check_is_a_name(one)
                check_choice("to", one, get_args(ChannelName))
        self.channels: tuple[Channel, ...] = tuple(
            _BY_NAME[one]() if isinstance(one, str) else one for one in named
        )
        check_parts("to", self.channels, method="send")
        check_positive(
            cooldown_minutes=cooldown_minutes,
            heartbeat_seconds=heartbeat_seconds,
            stalled_after_seconds=1.0 if stalled_after_seconds is None else stalled_after_seconds,
            flush_seconds=flush_seconds,
        )
        if flush_seconds == float("inf"):
            msg = "`flush_seconds` must be finite, got inf: training would never end."
            raise ValueError(msg)
        check_count("settle_steps", settle_steps, least=0)
        check_count("most_per_hour", most_per_hour)
        if tab_url is not None:
            http.check_address("`tab_url`", tab_url)
        self._min_severity = severity_of(min_severity)
        self._limits = {
            "cooldown_seconds": 60.0 * cooldown_minutes,
            "settle_steps": settle_steps,
            "most_per_hour": most_per_hour,
        }
        self._stalled_after = stalled_after_seconds
        self._heartbeat = None
        if heartbeat_url_env is not None:
            self._heartbeat = Secret("the heartbeat's address", heartbeat_url_env)
        self._heartbeat_seconds = heartbeat_seconds
        self._tab_url = tab_url
        self.flush_seconds = flush_seconds

    def __repr__(self) -> str:
        """Name the channels, and no secret."""
        return f"Alerts(to=[{', '.join(map(repr, self.channels))}])"

    def secrets(self) -> tuple[str, ...]:
        """Return what nobody may see.

        Raises:
            ValueError: One of them is missing, or is of a wrong form.
        """
        found = [one for channel in self.channels for one in _secrets_of(channel)]
        if self._heartbeat is not None:
            address = self._heartbeat.read()
            http.check_address("The heartbeat's address", address)
            found.append(address)
        return tuple(found)

    def open(self, run: str, loggers: Sequence[Any] = ()) -> Desk:
        """Start to tell people of a run.

        Args:
            run: Its name, as the tab has it.
            loggers: The trainer's.

        Raises:
            ValueError: A secret is missing, or a logger that a channel needs.
        """
        hide = scrubber(self.secrets())
        for channel in self.channels:
            connect = getattr(channel, "connect", None)
            if callable(connect):
                connect(loggers)
        boxes = [
            Outbox(
                channel,
                _name_of(channel),
                severity_of(getattr(channel, "min_severity", "info")),
                scrub=hide,
                warn=_log.warning,
            )
            for channel in self.channels
        ]
        return Desk(
            Incidents(min_severity=self._min_severity, **self._limits),  # type: ignore[arg-type]  # each of its kind
            boxes,
            _Stamp(run, self._tab_url, hide),
            pulse=self._pulse(),
            watchdog=None if self._stalled_after is None else Watchdog(self._stalled_after),
        )

    def _pulse(self) -> Pulse | None:
        address = self._heartbeat
        if address is None:
            return None
        return Pulse(Heartbeat(self._heartbeat_seconds), lambda: http.request(address.read()))


class _Stamp:
    """Adds to an alert what is the same for all of a run, and takes secrets out of its words."""

    def __init__(self, run: str, tab_url: str | None, hide: Callable[[str], str]) -> None:
        self._run, self._tab_url, self._hide = run, tab_url, hide
        self._host = socket.gethostname()

    def __call__(self, alert: Alert) -> Alert:
        """Return the alert as it is sent."""
        return replace(
            alert,
            id=fresh_name(),
            kind=self._short(alert.kind),
            unit=self._short(alert.unit),
            group=self._short(alert.group),
            message=self._short(alert.message),
            action=self._short(alert.action),
            advice=self._short(alert.advice),
            recent=tuple(map(self._short, alert.recent)),
            layers=tuple(map(self._short, alert.layers[:_MOST_LAYERS])),
            run=self._run,
            host=self._host,
            link=self._link(alert),
            time=time.time(),
        )

    def _short(self, text: str) -> str:
        # Cut before, too: to look through 200 MB takes seconds, in which nothing else runs.
        return self._hide(text[: 2 * _MOST_CHARACTERS])[:_MOST_CHARACTERS]

    def _link(self, alert: Alert) -> str:
        if self._tab_url is None:
            return ""
        layer = alert.layers[0] if alert.layers else ""
        # A name that is cut, or in which something was hidden, leads nowhere.
        values = {"run": self._run, "layer": layer if self._short(layer) == layer else None}
        values["step"] = str(alert.step) if alert.step >= 0 else None
        values["optimizer"] = str(alert.optimizer_index) if alert.optimizer_index else None
        pairs = "".join(
            f"&p.gradguard.{key}={quote(value.encode('utf-8', 'replace'), safe='')}"
            for key, value in values.items()
            if value
        )
        return f"{self._tab_url.partition('#')[0].rstrip('/')}/#gradguard{pairs}"


def _check_is_a_name(text: str) -> None:
    """Refuse what may be an address, without showing it."""
    if any(mark in text for mark in "/:@."):
        msg = (
            "`to` must be the name of a channel, got what looks like an address, which is not "
            "shown. Put it into the environment variable GRADGUARD_WEBHOOK_URL and write 'webhook'."
        )
        raise ValueError(msg)


def _secrets_of(channel: Channel) -> tuple[str, ...]:
    ask = getattr(channel, "secrets", None)
    found = ask() if callable(ask) else ()
    is_list = isinstance(found, Iterable) and not isinstance(found, (str, bytes))
    texts = tuple(found) if is_list else (None,)
    if not all(isinstance(one, str) and one for one in texts):
        msg = (
            f"`secrets` of {_name_of(channel)} must return a list of texts that are not empty, got "
            "something else, which is not shown."
        )
        raise ValueError(msg)
    return texts


def _name_of(channel: Channel) -> str:
    return type(channel).__name__


AlertsLike: TypeAlias = Alerts | Sequence[Channel | ChannelName] | Channel | ChannelName
"""What a callback takes: settings, or who is told with all else as it is by default."""
