"""A small shop over HTTP, and servers that answer as nobody should: real sockets on the loopback."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Shop(BaseHTTPRequestHandler):
    """Signs one customer in and shows the orders. The first ``server.not_ready`` answers are 503."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, value: Any, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, one in headers.items():
            self.send_header(name.replace("_", "-"), one)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        if self.server.not_ready > 0:
            self.server.not_ready -= 1
            return self._answer(503, {"status": "starting"})
        if self.path == "/elsewhere":
            return self._answer(302, {}, Location="http://outside.example/")
        if self.path.startswith("/whoami"):
            return self._answer(200, {"cookie": self.headers.get("Cookie"), "path": self.path})
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._answer(401, {"error": "who are you"})
        return self._answer(200, {"orders": self.server.orders, "token": self.server.token})

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if sent != {"email": "drill@example.org", "password": "hunter22"}:
            return self._answer(403, {"error": "no"})
        return self._answer(200, {"auth": {"accessToken": self.server.token}}, Set_Cookie="sid=c00kie; HttpOnly")


@contextlib.contextmanager
def serving_shop(**state: Any) -> Iterator[tuple[int, Any]]:
    """The shop, its port and its state."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    server.__dict__.update({"token": "t0k/en+1", "orders": [{"id": 7}], "seen": [], "not_ready": 0, **state})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_port, server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that gives each connection to ``answer``; its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.recv(65_536)
                answer(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)
