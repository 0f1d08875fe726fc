"""A proxy in front of an S3 server that misbehaves as told: errors, delays, broken-off bodies, lost answers."""

from __future__ import annotations

import enum
import http.client
import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Act(enum.Enum):
    """What happens to a request."""

    ANSWER = "answer"  #: an error instead of the server's answer; the server never hears of it
    DROP = "drop"  #: the connection ends without an answer; the server never hears of it
    LOSE = "lose"  #: the server does it, and the connection ends without an answer
    CUT = "cut"  #: the answer's body ends in the middle
    DELAY = "delay"  #: the answer comes late


@dataclass(slots=True, kw_only=True)
class Rule:
    """The first ``times`` requests after ``skip`` of this method whose target contains this text suffer ``act``."""

    act: Act
    method: str = ""
    contains: str = ""
    times: int = 1
    skip: int = 0
    status: int = 500
    code: str = "InternalError"
    seconds: float = 0.0
    at_byte: int = 1000

    def applies(self, method: str, target: str) -> bool:
        if self.method not in ("", method) or self.contains not in target or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class S3Proxy:
    """Listens on the loopback and passes on to ``upstream``. ``requests`` are ``(method, target, range)``.

    With ``certificate`` (its file and its key's) it speaks TLS.
    """

    def __init__(self, upstream: str, *, certificate: tuple[Path, Path] | None = None) -> None:
        self.rules: list[Rule] = []
        self.requests: list[tuple[str, str, str]] = []
        self._upstream = urlsplit(upstream)
        self._lock = threading.Lock()
        self._over = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 120

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError, ssl.SSLError):
                    self.close_connection = True

            def __getattr__(self, name: str) -> object:
                if name.startswith("do_"):
                    return lambda: proxy.serve(self)
                raise AttributeError(name)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "http"
        if certificate is not None:
            self._scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            # The handshake happens in the thread of the connection, not in the one that accepts.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()  # nobody waits any more for an answer that is late
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        method, target = handler.command, handler.path
        with self._lock:
            self.requests.append((method, target, handler.headers.get("Range", "")))
            rule = next((rule for rule in self.rules if rule.applies(method, target)), None)
        if rule is not None and rule.act is Act.ANSWER:
            text = f"<Error><Code>{rule.code}</Code><Message>as the test demands</Message></Error>".encode()
            self._answer(handler, rule.status, [("Content-Type", "application/xml")], text)
            return
        if rule is not None and rule.act is Act.DROP:
            handler.close_connection = True
            return
        status, headers, answer = self._ask(handler, method, target, body)
        if rule is not None and rule.act is Act.LOSE:
            handler.close_connection = True
            return
        if rule is not None and rule.act is Act.DELAY:
            self._over.wait(rule.seconds)
        cut_at = rule.at_byte if rule is not None and rule.act is Act.CUT else None
        self._answer(handler, status, headers, answer, cut_at)

    def _ask(
        self, handler: BaseHTTPRequestHandler, method: str, target: str, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=120)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _answer(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        cut_at: int | None = None,
    ) -> None:
        handler.send_response_only(status)
        for name, value in headers:
            if name.lower() in ("connection", "transfer-encoding"):
                continue
            if name.lower() == "content-length" and handler.command != "HEAD":
                continue
            handler.send_header(name, value)
        if handler.command != "HEAD":
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        handler.wfile.write(body[:cut_at])
        if cut_at is not None:
            handler.close_connection = True
