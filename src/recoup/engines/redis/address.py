"""Where a Redis is and how to log in to it, read from a URL. It holds a password, so it travels as a ``Secret``."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from recoup.kernel.errors import EngineError, UsageError
from recoup.kernel.secret import Secret

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """How a ``rediss://`` connection is protected. Names and meaning follow redis-py's URL parameters."""

    ca_file: Path | None = None  #: ``ssl_ca_certs``; the system's authorities when absent
    certificate: Path | None = None  #: ``ssl_certfile``, for servers that ask their clients for one
    key: Path | None = None  #: ``ssl_keyfile``
    verify: bool = True  #: False with ``ssl_cert_reqs=none``
    check_name: bool = True  #: False with ``ssl_check_hostname=false``

    def context(self) -> ssl.SSLContext:
        """The context to connect with. Raise ``EngineError`` when a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as failure:  # ssl.SSLError is one
            raise EngineError(
                f"cannot use the TLS files of the Redis URL: {failure.strerror or failure}",
                hint="Check ssl_ca_certs, ssl_certfile and ssl_keyfile in the URL.",
            ) from failure
        if not self.verify or not self.check_name:
            context.check_hostname = False
        if not self.verify:
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """One Redis server. ``str`` gives the address without user and password."""

    host: str = ""
    port: int = DEFAULT_PORT
    socket: Path | None = None  #: a Unix socket instead of host and port
    user: str | None = None
    password: Secret | None = None
    database: int = 0
    tls: TlsOptions | None = None

    def __str__(self) -> str:
        if self.socket is not None:
            return f"unix://{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'redis' if self.tls is None else 'rediss'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Query:
    values: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path | None:
        return Path(self.values[name]) if name in self.values else None

    def off(self, name: str) -> bool:
        return self.values.get(name, "").lower() in ("none", "false", "no", "0")


def parse_address(url: Secret | str) -> RedisAddress:
    """Read ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` (TLS) or ``unix://[[user]:password@]/path[?db=N]``.

    Raise ``UsageError`` for anything else; the message never repeats the URL, because it may hold a password.
    """
    text = url.reveal() if isinstance(url, Secret) else url
    hint = "Write redis://:PASSWORD@HOST:6379/0, rediss://… for TLS, or unix:///path/to/redis.sock."
    try:
        parts = urlsplit(text)
        port = parts.port or DEFAULT_PORT
    except ValueError as wrong:
        raise UsageError("the Redis URL cannot be read: the host or the port is wrong", hint=hint) from wrong
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise UsageError("the Redis URL begins with none of redis://, rediss:// and unix://", hint=hint)
    query = _Query(dict(parse_qsl(parts.query)))
    database = query.values.get("db", "0" if parts.scheme == "unix" else parts.path.strip("/") or "0")
    if not database.isascii() or not database.isdigit():
        raise UsageError("the Redis URL's database is not a number", hint=hint)
    user = unquote(parts.username) if parts.username else None
    password = Secret(unquote(parts.password)) if parts.password else None
    if parts.scheme == "unix":
        if not parts.path:
            raise UsageError("the Redis URL names no socket", hint=hint)
        return RedisAddress(socket=Path(unquote(parts.path)), user=user, password=password, database=int(database))
    if not parts.hostname:
        raise UsageError("the Redis URL names no host", hint=hint)
    tls = None
    if parts.scheme == "rediss":
        tls = TlsOptions(
            ca_file=query.path("ssl_ca_certs"),
            certificate=query.path("ssl_certfile"),
            key=query.path("ssl_keyfile"),
            verify=not query.off("ssl_cert_reqs"),
            check_name=not query.off("ssl_check_hostname"),
        )
    return RedisAddress(host=parts.hostname, port=port, user=user, password=password, database=int(database), tls=tls)
