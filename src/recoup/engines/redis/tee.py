"""Fingerprinting an RDB while it streams by, without letting the fingerprint hold the transfer up for long."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from recoup.engines.redis.fingerprint import Fingerprinter
from recoup.engines.redis.rdb import read_rdb
from recoup.engines.redis.rdb_summary import Summary
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError, UnknownFormatError

#: How long, in all, a transfer may wait for its fingerprint. While it waits, a forked Redis lives longer.
PATIENCE_SECONDS = 30.0
_QUEUE_BYTES = 32 << 20
_END = b""


class FingerprintTee:
    """Give it every piece of an RDB with ``write``; ``finish`` returns the fingerprint, or why there is none.

    The work is done in a thread behind a bounded queue. When the queue is full the writer waits, up to a budget for
    the whole transfer; then the fingerprint is given up, because production comes first.
    """

    def __init__(self, *, at_ms: int, origin_ms: int | None = None, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._pieces: queue.Queue[bytes] = queue.Queue()
        self._waiting = threading.Condition()
        self._queued_bytes = 0
        self._patience = patience_seconds
        self._given_up = False
        self._sums = Fingerprinter(at_ms=at_ms, origin_ms=origin_ms)
        self._summary = Summary()
        self._failure: RecoupError | None = None
        self._thread = threading.Thread(target=self._work, name="redis-fingerprint", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Take the next piece."""
        if self._given_up or not data or not self._thread.is_alive():
            return
        with self._waiting:
            begun = clock.monotonic()
            free = self._waiting.wait_for(
                lambda: self._queued_bytes < _QUEUE_BYTES or not self._thread.is_alive(), timeout=self._patience
            )
            self._patience = max(0.0, self._patience - (clock.monotonic() - begun))
            if not free:
                self._give_up()
                return
            self._queued_bytes += len(data)
        self._pieces.put(data)

    def finish(self) -> tuple[dict[str, Any], Summary] | str:
        """After the last piece: the fingerprint and what the file adds up to, or why they are missing.

        Raise ``DamageError`` when the file is damaged. A format that is not known here is no damage: the copy is
        good, it can only not be fingerprinted.
        """
        if not self._given_up:
            self._pieces.put(_END)
        self._thread.join()
        if isinstance(self._failure, UnknownFormatError):
            return self._failure.message
        if self._failure is not None:
            raise self._failure
        if self._given_up:
            return "the RDB came faster than it could be fingerprinted; the stored copy can be"
        return self._sums.result(), self._summary

    def abandon(self) -> None:
        """Stop the thread; the transfer failed."""
        with self._waiting:
            self._give_up()
        self._thread.join()

    def _give_up(self) -> None:
        self._given_up = True
        self._pieces.put(_END)

    def _chunks(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not _END:
            if self._given_up:
                return
            yield piece
            with self._waiting:
                self._queued_bytes -= len(piece)
                self._waiting.notify_all()

    def _work(self) -> None:
        try:
            for record in read_rdb(self._chunks()):
                self._summary.add(record)
                self._sums.add(record)
        except RecoupError as failure:
            if not self._given_up:
                self._failure = failure
        finally:
            with self._waiting:
                self._waiting.notify_all()
