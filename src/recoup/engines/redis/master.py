"""The master's side of one full synchronisation (Redis, src/replication.c), for a single replica."""

from __future__ import annotations

import contextlib
import hmac
import secrets
import select
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from recoup.engines.engine import CopyReader, Progress, ProgressListener
from recoup.engines.redis.address import RedisAddress
from recoup.engines.redis.connection import Connection, LostConnectionError
from recoup.engines.redis.seal import RdbSeal, sealed_pieces
from recoup.engines.redis.snapshot import STREAM
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, EngineError
from recoup.kernel.secret import Secret

_ACCEPT_SECONDS = 30.0
_SEND_SECONDS = 120.0
_PING_SECONDS = 5.0
_PING = b"*1\r\n$4\r\nPING\r\n"
_COMMANDS_LIMIT = 32
_ATTEMPTS = 8


class Master:
    """Listens for one replica, which must log in as ``user`` with ``password``, and serves it one RDB."""

    def __init__(self, host: str, *, user: str, password: Secret) -> None:
        self.user = user
        self._password = password
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, 0), family=family, backlog=2)
        except OSError as failure:
            raise EngineError(
                f"cannot listen on {host}: {failure.strerror or failure}",
                hint="Name an address of this machine that the Redis server reaches.",
            ) from failure
        self.host, self.port = self._listener.getsockname()[:2]
        self._replica: socket.socket | None = None
        self._pinged = 0.0
        self.sent_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in (self._listener, self._replica):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.close()

    def serve(self, reader: CopyReader, on_progress: ProgressListener) -> None:
        """Wait for the replica and send it the whole RDB; the last piece only when the whole has proved intact.

        Raise ``EngineError`` when no replica comes or it goes away, ``DamageError`` when the copy is damaged.
        """
        length = next((stream.plain_bytes for stream in reader.streams() if stream.name == STREAM), None)
        if length is None:
            raise DamageError(f"the copy has no stream {STREAM}")
        replica = self._accept()
        self._replica = replica
        try:
            replica.sendall(b"+FULLRESYNC %b 0\r\n$%d\r\n" % (secrets.token_hex(20).encode(), length))
            for piece in sealed_pieces(reader.read(STREAM), RdbSeal()):
                if self.sent_bytes + len(piece) > length:
                    raise DamageError(f"the RDB is longer than its {length} bytes")
                replica.sendall(piece)
                self.sent_bytes += len(piece)
                on_progress(Progress(what=STREAM, done_bytes=self.sent_bytes, total_bytes=length))
            if self.sent_bytes != length:
                raise DamageError(f"the RDB has {self.sent_bytes} bytes instead of {length}")
        except OSError as failure:
            raise EngineError(
                f"the Redis server went away while it received the copy: {failure.strerror or failure}",
                hint="Look at its log; its old data are in place.",
            ) from failure

    def still_served(self) -> bool:
        """Keep the replica's link alive while it loads; whether it is still there."""
        assert self._replica is not None
        try:
            if clock.monotonic() - self._pinged > _PING_SECONDS:
                self._pinged = clock.monotonic()
                self._replica.sendall(_PING)
            while select.select([self._replica], [], [], 0)[0]:
                if not self._replica.recv(65_536):
                    return False
        except OSError:
            return False
        return True

    def _accept(self) -> socket.socket:
        deadline = clock.monotonic() + _ACCEPT_SECONDS
        for _ in range(_ATTEMPTS):
            self._listener.settimeout(max(0.01, deadline - clock.monotonic()))
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                break
            sock.settimeout(_SEND_SECONDS)
            if self._greet(sock):
                return sock
            sock.close()  # not our replica: it did not know the password
        raise EngineError(
            f"the Redis server did not come to fetch the copy from {self.host}:{self.port}",
            hint="Let it reach this machine on that address, or stop it and restore into its data folder.",
        )

    def _greet(self, sock: socket.socket) -> bool:
        """Answer a replica's handshake up to its PSYNC. False when it is not the one that is waited for."""
        peer = Connection(sock, RedisAddress(host="the replica"))
        known = False
        try:
            for _ in range(_COMMANDS_LIMIT):
                words = peer.reply()
                if not isinstance(words, list) or not words:
                    return False
                name = words[0].upper() if isinstance(words[0], bytes) else b""
                if name == b"AUTH":
                    known = self._knows(words[1:])
                    sock.sendall(b"+OK\r\n" if known else b"-WRONGPASS invalid username-password pair\r\n")
                elif name == b"PING":
                    sock.sendall(b"+PONG\r\n")
                elif not known:
                    sock.sendall(b"-NOAUTH Authentication required.\r\n")
                elif name == b"REPLCONF":
                    sock.sendall(b"+OK\r\n")
                elif name == b"PSYNC":
                    return True
                else:
                    sock.sendall(b"-ERR unknown command\r\n")
        except (LostConnectionError, EngineError, OSError):
            return False
        return False

    def _knows(self, credentials: Sequence[object]) -> bool:
        expected = (self.user.encode(), self._password.reveal().encode())
        given = tuple(word if isinstance(word, bytes) else b"" for word in credentials)
        return len(given) == 2 and all(hmac.compare_digest(a, b) for a, b in zip(given, expected, strict=True))
