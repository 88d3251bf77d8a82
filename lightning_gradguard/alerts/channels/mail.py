"""Alerts as mail, over SMTP.

In: alerts. Out: one plain-text mail each, over a connection whose certificate was checked.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from email.message import EmailMessage
from typing import Any, Literal, TypeAlias, get_args

from lightning_gradguard.alerts import text
from lightning_gradguard.alerts.alert import Alert
from lightning_gradguard.alerts.base import Level, RefusedError, severity_of
from lightning_gradguard.alerts.channels.several import Several
from lightning_gradguard.alerts.http import cut_off
from lightning_gradguard.alerts.secret import Secret
from lightning_gradguard.options import check_choice, check_count, check_positive, check_text

__all__ = ["Email"]

Tls = Literal["starttls", "tls", "none"]

Refused: TypeAlias = Mapping[str, tuple[int, bytes]]
"""What the server answered for each address that it did not take."""


class Email:
    """Send alerts by mail.

    Args:
        to: Addresses that get it.
        sender: Address that it comes from.
        host: Name of the SMTP server.
        port: Its port; None is 465 for ``"tls"``, 587 for ``"starttls"`` and 25 for ``"none"``.
        tls: Whether the connection is encrypted from its beginning, from the first command on, or
            not at all.
        user: Name to log in with; None does not log in.
        password_env: Name of the environment variable that holds the password.
        password_file: Name of a file that holds it; goes before the variable.
        timeout_seconds: How long the server may take for each part; three times that for all.
        min_severity: What is less severe is not for this channel.

    Raises:
        ValueError: A password would go over a connection that is not encrypted.
    """

    def __init__(
        self,
        to: Sequence[str] | str,
        *,
        sender: str,
        host: str,
        port: int | None = None,
        tls: Tls = "starttls",
        user: str | None = None,
        password_env: str = "GRADGUARD_SMTP_PASSWORD",  # noqa: S107 - the name of one
        password_file: str | None = None,
        timeout_seconds: float = 10.0,
        min_severity: Level = "info",
    ) -> None:
        self.min_severity = severity_of(min_severity)
        self._to = (to,) if isinstance(to, str) else tuple(to)
        check_text(sender=sender, host=host, user=user or "", password_env=password_env)
        check_text(**{f"to[{i}]": address for i, address in enumerate(self._to)})
        check_choice("tls", tls, get_args(Tls))
        check_positive(timeout_seconds=timeout_seconds)
        if port is not None:
            check_count("port", port)
        if not self._to or any(c in "\r\n" for one in (*self._to, sender) for c in one):
            msg = f"`to` and `sender` must be addresses of mail, got {self._to!r}, {sender!r}."
            raise ValueError(msg)
        if tls == "none" and user is not None:
            msg = "A password must not go over a connection in clear: use tls='starttls' or 'tls'."
            raise ValueError(msg)
        self._sender, self._host, self._tls, self._user = sender, host, tls, user
        self._port = port or {"tls": 465, "starttls": 587, "none": 25}[tls]
        self._password = Secret("the password for mail", password_env, password_file)
        self._timeout = timeout_seconds
        self._several = Several()

    def __repr__(self) -> str:
        """Name the server, not who gets it."""
        return f"Email(host={self._host!r})"

    def secrets(self) -> tuple[str, ...]:
        """Return what nobody may see.

        Raises:
            ValueError: A password is needed and there is none.
        """
        return () if self._user is None else (self._password.read(),)

    def send(self, alert: Alert) -> None:
        """Send one mail; after a part of its people was put off, to those only.

        Raises:
            PartialError: The server refused some of them for good, and took it for the others.
            RefusedError: It refused the mail, or all of them.
        """
        message = EmailMessage()
        message["Subject"] = text.title(alert)
        message["From"], message["To"] = self._sender, ", ".join(self._to)
        message.set_content(text.body(alert))
        left = self._several.left(alert, len(self._to))
        try:
            refused = self._deliver(message, [self._to[one - 1] for one in left])
        except smtplib.SMTPRecipientsRefused as error:  # then nobody got it
            refused = {**dict.fromkeys(self._to, (421, b"")), **error.recipients}
        except smtplib.SMTPResponseException as error:
            if 500 <= error.smtp_code < 600:
                msg = f"the server answered {error.smtp_code}"
                raise RefusedError(msg) from None
            raise
        codes = {one: refused[self._to[one - 1]][0] for one in left if self._to[one - 1] in refused}
        self._several.settle(
            len(self._to),
            later={one: f"answered {code}" for one, code in codes.items() if code < 500},
            never={one: f"answered {code}" for one, code in codes.items() if code >= 500},
        )

    def _deliver(self, message: EmailMessage, to: Sequence[str]) -> Refused:
        context = ssl.create_default_context()
        made: list[smtplib.SMTP] = []
        where = (made, self._host, self._port, self._timeout)
        with cut_off(3.0 * self._timeout, lambda: [one.sock for one in made]):
            server = _SmtpTls(*where, context=context) if self._tls == "tls" else _Smtp(*where)
            with closing(server):
                if self._tls == "starttls":
                    server.starttls(context=context)
                if self._user is not None:
                    server.login(self._user, self._password.read())
                refused = server.send_message(message, to_addrs=to)
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()  # what the server says to it changes nothing
        return refused


class _Smtp(smtplib.SMTP):
    """A connection that can be found before the server has greeted."""

    def __init__(
        self,
        made: list[smtplib.SMTP],
        host: str,
        port: int,
        timeout: float,
        **options: Any,  # noqa: ANN401 - those of the base class
    ) -> None:
        made.append(self)
        super().__init__(host, port, timeout=timeout, **options)


class _SmtpTls(_Smtp, smtplib.SMTP_SSL):
    """The same, encrypted from its beginning."""
