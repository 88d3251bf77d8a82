"""Servers on loopback that answer alerts as the network does: well, badly, or not at all."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server(ThreadingHTTPServer):
    """Keeps what it was sent, and answers with one status after the other, the last for ever."""

    daemon_threads = True

    def __init__(self, *answers: int | str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.got, self.asked = list(answers or (200,)), [], 0
        self.pinged = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where it is, with something in it that is a secret."""
        return f"http://127.0.0.1:{self.server_port}/services/T0SECRET/xyzSECRETxyz"

    def answer(self) -> int | str:
        """Return the next answer."""
        with self.lock:
            self.asked += 1
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def wait_for(self, count: int, seconds: float = 20.0) -> list[dict[str, Any]]:
        """Return what was taken, once there is so much of it."""
        until = time.monotonic() + seconds
        while len(self.got) < count and time.monotonic() < until:
            time.sleep(0.01)
        return list(self.got)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients leave as the tests want it."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.answer()
        if isinstance(answer, int):
            if answer < 300:
                self.server.got.append(json.loads(body))
            self._say(answer)
        else:
            getattr(self, f"_{answer}")()

    def do_GET(self) -> None:
        self.server.pinged += 1
        answer = self.server.answer()
        if isinstance(answer, int):
            self._say(answer)
        else:
            getattr(self, f"_{answer}")()

    def _say(self, status: int) -> None:
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _hang(self) -> None:
        time.sleep(60.0)

    def _drip(self) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: 1\r\n" * 100:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.2)

    def _cut(self) -> None:
        self.wfile.write(b"HTTP/1.1 2")
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _huge(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(10_000_000))
        self.end_headers()
        self.wfile.write(b"x" * 10_000_000)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def serving(*answers: int | str) -> Iterator[Server]:
    """Run a server."""
    server = Server(*answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def refusing() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}/services/T0SECRET/xyz"


def certificate(folder: Path) -> ssl.SSLContext:
    """Make a certificate that nobody has signed."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    name = ["-subj", "/CN=localhost"]
    subprocess.run([*command, *files, *name], check=True, capture_output=True)  # noqa: S603 - ours
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@contextmanager
def dripping(byte: bytes = b"2", seconds: float = 0.1) -> Iterator[tuple[int, list[float]]]:
    """Give the port of a server that sends one byte after the other for ever, and when it did."""
    sent: list[float] = []

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while True:
                connection.sendall(byte)
                sent.append(time.monotonic())
                time.sleep(seconds)

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1], sent
