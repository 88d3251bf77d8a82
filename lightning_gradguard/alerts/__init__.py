"""Messages that reach people: once per incident, and never in the way of the training."""

from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import Channel, PartialError, RefusedError
from lightning_gradguard.alerts.channels.apprise import Apprise
from lightning_gradguard.alerts.channels.log import Log
from lightning_gradguard.alerts.channels.mail import Email
from lightning_gradguard.alerts.channels.trackers import MLflow, WandB
from lightning_gradguard.alerts.channels.webhook import Webhook
from lightning_gradguard.alerts.settings import Alerts

__all__ = [
    "Alert",
    "Alerts",
    "Apprise",
    "Channel",
    "Email",
    "Log",
    "MLflow",
    "PartialError",
    "RefusedError",
    "WandB",
    "Webhook",
]
