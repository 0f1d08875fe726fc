"""Keeping the WAL that a base backup needs until the server has sent it, without ever filling the server's disk.

A server recycles WAL at every second checkpoint or so; a backup that takes longer than that would fail at its end. A
temporary physical slot on a connection of its own keeps the WAL. The server drops it when the connection ends, for
whatever reason; and it is let go here as soon as the WAL held exceeds a limit, for production comes first: the backup
then succeeds or fails as it would have without.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from types import TracebackType
from typing import Self

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.wire import Wire, connect
from recoup.kernel.errors import RecoupError
from recoup.kernel.secret import Secret

_LOOK_SECONDS = 5.0
_LEAST_BYTES, _MOST_BYTES = 1 << 30, 16 << 30
#: Should this machine vanish, the server notices after 60 s instead of its system's two hours, and drops the slot.
_SERVER_KEEPALIVE = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"


class WalHold:
    """A context in which the server keeps its WAL from now on, at most ``limit_bytes`` of it (0: none is held).

    Without a limit from outside, it is a tenth of the cluster's size, between 1 and 16 GiB: disks of databases are
    rarely fuller than that allows, and 16 GiB are an hour of writing at 4.5 MB/s. ``state`` says how it went:
    ``held``, ``not held: <why>`` or ``let go: <why>``. Never raises: a backup without a hold is still worth trying.
    """

    def __init__(self, url: Secret, *, limit_bytes: int | None, look_seconds: float = _LOOK_SECONDS) -> None:
        self._url = url
        self._fixed = limit_bytes is not None
        self._limit = _LEAST_BYTES if limit_bytes is None else limit_bytes
        self._look_seconds = look_seconds
        self._wire: Wire | None = None
        self._begun = Lsn(0)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.state = "not held: not begun"

    def for_cluster_of(self, size_bytes: int) -> None:
        """Fit the limit to the size of the cluster, unless it was given."""
        if not self._fixed:
            self._limit = min(max(size_bytes // 10, _LEAST_BYTES), _MOST_BYTES)

    def __enter__(self) -> Self:
        if self._fixed and self._limit == 0:
            self.state = "not held: not wanted"
            return self
        try:
            self._wire = wire = connect(self._url, application_name="recoup wal hold", options=_SERVER_KEEPALIVE)
            self._begun = wire.identify().position
            wire.rows(f"CREATE_REPLICATION_SLOT recoup_{secrets.token_hex(6)} TEMPORARY PHYSICAL RESERVE_WAL")
        except RecoupError as failure:
            self.state = f"not held: {failure.message}"
            self._let_go()
            return self
        self.state = "held"
        self._thread = threading.Thread(target=self._watch, args=(wire,), name="wal-hold", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(30)
        self._let_go()

    def _watch(self, wire: Wire) -> None:
        while not self._over.wait(self._look_seconds):
            try:
                held = wire.identify().position.value - self._begun.value
            except RecoupError as failure:
                self.state = f"let go: {failure.message}"
                break
            if held > self._limit:
                self.state = f"let go: more than {self._limit} bytes of WAL were written during the backup"
                break
        if not self._over.is_set():
            self._let_go()

    def _let_go(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            with contextlib.suppress(RecoupError):
                wire.close()
