"""One request to an address of the user's, over which nothing can be led astray or held up.

In: an address, what to send, a deadline. Out: nothing, or an error. TLS certificates are checked,
no redirect is followed, the answer's body is not read, and once there is a connection the whole may
take only so long, even if the other side sends a byte a second. The look-up of a name is the
system's and cannot be cut off: it holds up the thread that asked.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

from lightning_gradguard.alerts.base import RefusedError

__all__ = ["check_address", "cut_off", "request"]

_AGAIN: Final = {408, 425, 429}
_CUT_AGAIN_SECONDS: Final = 0.5


def check_address(what: str, address: str) -> None:
    """Raise ``ValueError``, which does not show the address, unless it is one of the web."""
    try:
        parts = urlsplit(address)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        is_good = is_good and "@" not in parts.netloc
    except ValueError:
        is_good = False
    if not is_good or not address.isascii() or not address.isprintable() or " " in address:
        msg = f"{what} must begin with https:// or http:// and name a host, without a password."
        raise ValueError(msg)


@contextmanager
def cut_off(
    seconds: float, sockets: Callable[[], Iterable[socket.socket | None]]
) -> Iterator[None]:
    """Close connections that are still open after some time, or that are made after it.

    Args:
        seconds: From now on.
        sockets: Returns those that are open then, or None in place of one.
    """
    is_over = threading.Event()

    def cut() -> None:
        wait = seconds
        while not is_over.wait(wait):
            for one in sockets():
                with suppress(OSError, AttributeError):
                    one.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]  # None is suppressed
            wait = _CUT_AGAIN_SECONDS  # a connection may come late, after the look-up of a name

    threading.Thread(target=cut, name="gradguard-cut-off", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def request(address: str, body: bytes | None = None, *, timeout: float = 5.0) -> None:
    """Send one request: POST with a body of JSON, GET without.

    Args:
        address: ``http://`` or ``https://``; proxies are those of the environment.
        body: What to send.
        timeout: Seconds to wait for each part of it; twice that for all.

    Raises:
        RefusedError: The other side refuses for good, or redirects.
        OSError: It cannot be reached, or has a fault that may pass.
    """
    headers = {"User-Agent": "lightning-gradguard"}
    if body is not None:
        headers["Content-Type"] = "application/json; charset=utf-8"
    asked = urllib.request.Request(address, body, headers)  # noqa: S310 - checked before
    made: list[http.client.HTTPConnection] = []
    opener = urllib.request.build_opener(_Http(made), _Https(made), _NoRedirect())
    try:
        with (
            cut_off(2.0 * timeout, lambda: [one.sock for one in made]),
            opener.open(asked, timeout=timeout),
        ):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        _refuse(error.code)
    except http.client.HTTPException as error:
        msg = f"the answer is no HTTP ({type(error).__name__})"
        raise OSError(msg) from None


def _refuse(code: int) -> None:
    if 300 <= code < 400:
        msg = f"answered {code}, a redirect, which is not followed: use the address it leads to"
        raise RefusedError(msg)
    msg = f"answered {code}"
    if code < 500 and code not in _AGAIN:
        raise RefusedError(msg)
    raise OSError(msg)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an error."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 - as in the base class
        return None


class _Http(urllib.request.HTTPHandler):
    """Opens connections that can be found again."""

    def __init__(self, made: list[http.client.HTTPConnection]) -> None:
        super().__init__()
        self._made = made

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPConnection:  # noqa: ANN401
        self._made.append(http.client.HTTPConnection(host, **options))
        return self._made[-1]


class _Https(urllib.request.HTTPSHandler):
    """The same, with certificates that are checked."""

    def __init__(self, made: list[http.client.HTTPConnection]) -> None:
        super().__init__()
        self._made = made

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPSConnection:  # noqa: ANN401
        made = http.client.HTTPSConnection(host, context=ssl.create_default_context(), **options)
        self._made.append(made)
        return made
