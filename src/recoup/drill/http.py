"""One HTTP request into a sandbox: bounded in time and bytes, never redirected, never sent anywhere else.

The address is looked up with ``dial`` and not in DNS: a name that the sandbox does not know is not asked, whatever it
means outside. Proxies of the environment are not used. Source: RFC 9112, RFC 3986.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from recoup.drill.reach import LIMIT_BYTES, Response
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, UncheckedError

#: Given the host and port of an address, where that is in the sandbox, or None when it is outside of it.
Dial = Callable[[str, int], tuple[str, int] | None]

_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
_NOT_IN_HEADERS: Final = re.compile(r"[\r\n\x00]")


def request(
    method: str,
    url: str,
    dial: Dial,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    timeout_seconds: float,
    limit_bytes: int = LIMIT_BYTES,
    tls: ssl.SSLContext | None = None,
    where: str = "the sandbox",
) -> Response:
    """Send it and read the answer, all within ``timeout_seconds``, at most ``limit_bytes`` of it.

    Raise ``UncheckedError`` for an address that is none or is not in ``where`` (words for people), ``EngineError`` when
    it did not answer, not in time, or not in HTTP. Messages name the host, never the rest of the address.
    """
    scheme, host, port, path, user = _parts(url)
    place = dial(host, port)
    if place is None:
        raise UncheckedError(
            f"{host}:{port} is not in {where}, and nothing outside of it is asked",
            hint="Write the address by the name and port that the service has inside the stack.",
        )
    sent = {**({} if user is None else {"Authorization": user}), **headers}
    for name, value in sent.items():
        if _NOT_IN_HEADERS.search(name + value) or not value.isascii():
            raise UncheckedError(f"the header {name} holds what no header can", hint="Correct the flow in the plan.")
    deadline = clock.monotonic() + timeout_seconds
    try:
        plain = socket.create_connection(place, timeout=timeout_seconds)
    except OSError as failure:
        raise _no_answer(host, port, failure, deadline) from failure
    with contextlib.closing(plain), _until(deadline, plain):
        try:
            wire = plain
            if scheme == "https":
                wire = (tls or ssl.create_default_context()).wrap_socket(plain, server_hostname=host)
            connection = http.client.HTTPConnection(host, port)
            connection.default_port = 443 if scheme == "https" else 80  # which goes unsaid in the Host header
            connection.sock = wire
            return _exchange(connection, method, path, sent, body, limit_bytes)
        except (OSError, http.client.HTTPException, ValueError) as failure:
            raise _no_answer(host, port, failure, deadline) from failure


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | None,
    limit_bytes: int,
) -> Response:
    connection.request(method, path, body=body, headers={**headers, "Connection": "close"})
    with contextlib.closing(connection.getresponse()) as answer:
        read = bytearray()
        while len(read) <= limit_bytes and (more := answer.read1(65_536)):
            read += more
        if len(read) <= limit_bytes and answer.length:
            raise http.client.IncompleteRead(bytes(read[:0]), answer.length)  # the rest was promised and did not come
        return Response(
            status=answer.status,
            headers=tuple(answer.getheaders()),
            body=bytes(read[:limit_bytes]),
            whole=len(read) <= limit_bytes,
        )


@contextlib.contextmanager
def _until(deadline: float, wire: socket.socket) -> Iterator[None]:
    """Cut the connection at the deadline, so that an answer that drips in byte by byte ends as well."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)

    watch = threading.Timer(max(0.0, deadline - clock.monotonic()), cut)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def _no_answer(host: str, port: int, failure: Exception, deadline: float) -> EngineError:
    where = f"{host}:{port}"
    if clock.monotonic() >= deadline or isinstance(failure, TimeoutError):
        return EngineError(f"{where} did not answer in time", hint="`timeout` of the step says how long it may take.")
    if isinstance(failure, ssl.SSLError):
        return EngineError(f"{where} was not reached by TLS: {failure.reason or 'it failed'}")
    if isinstance(failure, OSError):
        return EngineError(f"{where} did not answer: {failure.strerror or type(failure).__name__}")
    return EngineError(f"{where} did not answer in HTTP ({type(failure).__name__})")


def _parts(url: str) -> tuple[str, str, int, str, str | None]:
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        host, port = None, None
    if host is None or split.scheme not in ("http", "https") or _CONTROL.search(host):
        raise UncheckedError("not an address of a request", hint="Write it as in http://api:3000/api/orders.")
    path = quote(split.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if split.query:
        path += "?" + quote(split.query, safe="/?%:@!$&'()*+,;=~-._[]")
    user = None
    if split.username is not None:
        pair = f"{unquote(split.username)}:{unquote(split.password or '')}"
        user = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return split.scheme, host, port or (443 if split.scheme == "https" else 80), path, user
