"""A plain connection to a Redis server: commands and their replies, and the raw bytes of a replication transfer.

The replication handshake mixes replies with a bulk payload that no client library hands out, so this speaks the
protocol (RESP 2, https://redis.io/docs/latest/develop/reference/protocol-spec/) itself; it is used for ordinary
commands as well, so that there is one place where errors are translated.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

from recoup.engines.redis.address import RedisAddress, parse_address
from recoup.kernel.errors import EngineError
from recoup.kernel.secret import Secret

Reply = None | int | str | bytes | list["Reply"]

CONNECT_SECONDS = 10.0
REPLY_SECONDS = 30.0
_LINE_LIMIT = 64 * 1024
_BULK_LIMIT = 512 * 1024 * 1024
_ARRAY_LIMIT = 1 << 20
_DEPTH_LIMIT = 16
_PIECE = 256 * 1024

_HINTS = {
    "WRONGPASS": "Check the user and password in the Redis URL of the plan.",
    "NOAUTH": "Put the password into the Redis URL: redis://:PASSWORD@HOST:PORT.",
    "NOPERM": "Give the user that right; a backup needs +psync +replconf +ping +info +time +config|get (ACL SETUSER).",
    "LOADING": "The server is still loading its data; wait until it answers PING with PONG.",
    "DENIED": "Redis is in protected mode: set a password (requirepass) or bind it to the address Recoup connects to.",
    "MASTERDOWN": "This Redis is a replica that has lost its master; use the master's address.",
    "NOMASTERLINK": "This Redis is a replica that is not connected to its master; use the master's address.",
    "MISCONF": "Redis cannot save to its disk; look at its log, and free space in its data folder.",
    "OOM": "Redis is at its maxmemory; raise it or remove keys.",
}


class RefusedByServerError(EngineError):
    """The server answered a command with an error. ``code`` is its first word: ``NOAUTH``, ``NOPERM``, ``ERR`` …"""

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.may_retry = code == "LOADING"


class LostConnectionError(EngineError):
    """The connection ended or fell silent in the middle of a conversation."""

    may_retry = True


class Connection:
    """One open connection, logged in. Not safe to share between threads."""

    def __init__(self, sock: socket.socket, address: RedisAddress) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self.address = address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Harmless when repeated."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def local_host(self) -> str:
        """The address of this machine as the server sees it; the loopback's for a Unix socket."""
        name = self._socket.getsockname()
        return str(name[0]) if self._socket.family in (socket.AF_INET, socket.AF_INET6) else "127.0.0.1"

    def limit_silence(self, seconds: float) -> None:
        """Raise ``LostConnectionError`` when a later read waits longer than this for the next byte."""
        self._socket.settimeout(seconds)

    def send(self, *arguments: str | bytes | int | Secret) -> None:
        """Send one command without waiting for its reply. Raise ``LostConnectionError``."""
        pieces = [b"*%d\r\n" % len(arguments)]
        for argument in arguments:
            data = _to_bytes(argument)
            pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
        try:
            self._socket.sendall(b"".join(pieces))
        except OSError as failure:
            raise self._lost(failure) from failure

    def command(self, *arguments: str | bytes | int | Secret) -> Reply:
        """Send one command and return its reply. Raise ``RefusedByServerError`` or ``LostConnectionError``."""
        self.send(*arguments)
        return self.reply()

    def text(self, *arguments: str | bytes | int | Secret) -> str:
        """As ``command``, for commands that answer with a text."""
        answer = self.command(*arguments)
        if isinstance(answer, bytes):
            return answer.decode(errors="replace")
        if isinstance(answer, str):
            return answer
        raise EngineError(f"unexpected answer of {self.address} to {arguments[0]!r}: not a text")

    def reply(self, depth: int = 0) -> Reply:
        """Read one reply."""
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode(errors="replace")
        if kind == b"-":
            raise self.refusal(rest.decode(errors="replace"))
        number = self._number(rest, line)
        if kind == b":":
            return number
        if kind == b"$":
            if number < 0:
                return None
            if number > _BULK_LIMIT:
                raise self._nonsense(line)
            data = self.exactly(number)
            self.exactly(2)
            return data
        if kind == b"*":
            if number < 0:
                return None
            if number > _ARRAY_LIMIT or depth > _DEPTH_LIMIT:
                raise self._nonsense(line)
            return [self.reply(depth + 1) for _ in range(number)]
        raise self._nonsense(line)

    def line(self) -> bytes:
        """Read up to the next CR LF or LF and return what stands before it."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > _LINE_LIMIT:
                raise EngineError(f"{self.address} does not speak the Redis protocol: endless line")
            self._buffer += self._receive()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    def exactly(self, length: int) -> bytes:
        """Read exactly that many bytes."""
        while len(self._buffer) < length:
            self._buffer += self._receive()
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    def some(self, most: int = _PIECE) -> bytes:
        """Read whatever comes next, at least one byte and at most ``most``."""
        if self._buffer:
            data = bytes(self._buffer[:most])
            del self._buffer[:most]
            return data
        return self._receive(most)

    def wait(self, seconds: float) -> bool:
        """Whether there is something to read, at once or within so many seconds."""
        if self._buffer or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            return True
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def _receive(self, most: int = _PIECE) -> bytes:
        try:
            data = self._socket.recv(most)
        except OSError as failure:
            raise self._lost(failure) from failure
        if not data:
            raise LostConnectionError(
                f"{self.address} closed the connection", hint="Look at the log of the Redis server."
            )
        return data

    def _lost(self, failure: OSError) -> EngineError:
        if isinstance(failure, TimeoutError):
            silence = self._socket.gettimeout() or 0
            return LostConnectionError(
                f"{self.address} sent nothing for {silence:g} s", hint="Look at the log of the Redis server."
            )
        return LostConnectionError(f"lost the connection to {self.address}: {failure.strerror or failure}")

    def _number(self, text: bytes, line: bytes) -> int:
        try:
            return int(text)
        except ValueError as wrong:
            raise self._nonsense(line) from wrong

    def _nonsense(self, line: bytes) -> EngineError:
        shown = line[:40].decode(errors="replace")
        return EngineError(
            f"{self.address} does not speak the Redis protocol: {shown!r}",
            hint="Check the port, and whether the server wants TLS (rediss://).",
        )

    def refusal(self, said: str) -> RefusedByServerError:
        """Given an error reply, return the error to raise for it, with a hint and without the password."""
        return error_of(str(self.address), said, self.address.password)


def error_of(where: str, said: str, password: Secret | None) -> RefusedByServerError:
    """Given what a server answered, return the error to raise: with a hint, and never with the password."""
    if password is not None and (secret := password.reveal()):
        said = said.replace(secret, "***")
    code = said.split(" ", 1)[0].lstrip("-")
    hint = _HINTS.get(code)
    if "without any password configured" in said:
        code, hint = "NOPASSWORD", "The server has no password; remove it from the Redis URL of the plan."
    elif "invalid password" in said or "invalid username-password" in said:
        code, hint = "WRONGPASS", _HINTS["WRONGPASS"]
    return RefusedByServerError(f"{where} refused: {said[:300]}", code=code, hint=hint)


def connect(url: Secret | str | RedisAddress, *, database: int | None = None) -> Connection:
    """Open a connection, log in, select the URL's database (or ``database``), and check that the server answers.

    Raise ``EngineError`` with a hint when it cannot be reached, is not Redis, or refuses the login; ``UsageError``
    for a wrong URL. No message holds the password.
    """
    address = url if isinstance(url, RedisAddress) else parse_address(url)
    connection = Connection(_open(address), address)
    try:
        if address.password is not None:
            credentials = (address.password,) if address.user is None else (address.user, address.password)
            connection.command("AUTH", *credentials)
        connection.command("PING")
        wanted = address.database if database is None else database
        if wanted:
            connection.command("SELECT", wanted)
    except LostConnectionError as lost:
        connection.close()
        if address.tls is None:
            lost.hint = "Check the port, and whether the server wants TLS (rediss://)."
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def _open(address: RedisAddress) -> socket.socket:
    try:
        if address.socket is not None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(CONNECT_SECONDS)
            try:
                sock.connect(str(address.socket))
            except BaseException:
                sock.close()
                raise
        else:
            sock = socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if address.tls is not None:
            sock = _protect(sock, address)
    except ssl.SSLError as failure:
        raise EngineError(
            f"no TLS with {address}: {failure.reason or failure}",
            hint="Check that the server speaks TLS on that port, and ssl_ca_certs in the URL.",
        ) from failure
    except OSError as failure:
        why = "no answer" if isinstance(failure, TimeoutError) else failure.strerror or str(failure)
        raise EngineError(
            f"cannot reach {address}: {why}",
            hint="Check that Redis runs and listens on that address, and that no firewall stands between.",
        ) from failure
    sock.settimeout(REPLY_SECONDS)
    return sock


def _protect(sock: socket.socket, address: RedisAddress) -> socket.socket:
    assert address.tls is not None
    try:
        return address.tls.context().wrap_socket(sock, server_hostname=address.host)
    except BaseException:
        sock.close()
        raise


def _to_bytes(argument: str | bytes | int | Secret) -> bytes:
    if isinstance(argument, bytes):
        return argument
    return (argument.reveal() if isinstance(argument, Secret) else str(argument)).encode()


def read_info(connection: Connection, *sections: str) -> dict[str, str]:
    """The fields of ``INFO`` (of the named sections, one after the other, or the default ones)."""
    fields: dict[str, str] = {}
    for section in sections or ("",):
        text = connection.text("INFO", *([section] if section else []))
        fields.update(info_fields(text))
    return fields


def info_fields(text: str) -> Iterator[tuple[str, str]]:
    """Given the text of ``INFO``, yield its fields."""
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if separator and not line.startswith("#"):
            yield name, value


def read_settings(connection: Connection, *names: str) -> dict[str, str]:
    """The named settings, as ``CONFIG GET`` gives them; those that this server does not know are absent.

    Raise ``RefusedByServerError`` where ``CONFIG`` is renamed or not allowed.
    """
    settings: dict[str, str] = {}
    for name in names:
        answer = connection.command("CONFIG", "GET", name)
        if isinstance(answer, list) and len(answer) >= 2 and isinstance(answer[1], bytes):
            settings[name] = answer[1].decode(errors="replace")
    return settings


def read_keyspace(info: Mapping[str, str]) -> dict[int, int]:
    """Given ``INFO keyspace``, return the number of keys of each database that has any."""
    counts: dict[int, int] = {}
    for name, value in info.items():
        if name.startswith("db") and name[2:].isdigit():
            stated = dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
            counts[int(name[2:])] = int(stated.get("keys", "0"))
    return counts
