"""Feeds WAL to a recovering server, ahead of its replay: fetched in parallel, bounded in memory and in the spool.

The other side is ``recovery_script.RECOVER``. It says ``want NAME`` and ``took NAME``; what comes next is fetched and
sent before it is asked for. A file is sent as a tar member, then an empty member ``NAME.ready``: tar unpacks in order,
so what is marked ready is whole. Each batch fills whole tar records (10 KiB), because tar waits for a full record.
"""

from __future__ import annotations

import contextlib
import io
import queue
import tarfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Final, Protocol

from recoup.engines.postgres.recovery_choice import WalFile
from recoup.engines.postgres.recovery_script import Said, parse_said
from recoup.kernel.errors import RecoupError

_RECORD: Final = 10_240  #: a tar record: 20 blocks of 512 bytes
_BLOCK: Final = 512
_FETCHING: Final = 4  #: files in memory at once, at most
_SPOOL_BYTES: Final = 128 << 20  #: how far ahead of the replay the spool is filled
_LARGEST_LINE: Final = 4096
_SAID_LINES: Final = 2000

Fetch = Callable[[WalFile], bytes]


class Peer(Protocol):
    """The running script. ``kernel.process.Child`` is one."""

    @property
    def stdin(self) -> IO[bytes]: ...

    @property
    def stdout(self) -> IO[bytes]: ...


class WalFeed:
    """One feeding. ``files`` are all that may be asked for, in the order of the replay; ``fetch`` gives their bytes."""

    def __init__(
        self,
        files: Sequence[WalFile],
        fetch: Fetch,
        *,
        segment_bytes: int,
        on_replay: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> None:
        """``on_replay(taken, of)`` hears how many segments the server has taken."""
        self._files = {file.name: file for file in files}
        self._order = [file.name for file in files if file.segment is not None]
        self._place = {name: at for at, name in enumerate(self._order)}
        self._fetch = fetch
        self._ahead = max(2, _SPOOL_BYTES // segment_bytes)
        self._on_replay = on_replay
        self._events: queue.Queue[str | None] = queue.Queue()
        self._in_spool: set[str] = set()
        self._fetching: dict[str, Future[bytes]] = {}
        self._wanted: str | None = None
        self._next = 0  # the place of the file that the server will want next

    def run(self, peer: Peer) -> Said:
        """Feed until the script ends; what it said. Raise the error of a fetch, after the script was told to stop."""
        said: list[str] = []
        listener = threading.Thread(target=self._listen, args=(peer.stdout,), daemon=True)
        listener.start()
        failure: RecoupError | None = None
        with ThreadPoolExecutor(_FETCHING, thread_name_prefix="wal-fetch") as pool:
            try:
                self._begin(peer.stdin)
                self._feed(peer.stdin, pool, said)
            except BrokenPipeError:
                pass  # it has stopped reading, and says why
            except RecoupError as wrong:
                failure = wrong
            finally:
                for future in self._fetching.values():
                    future.cancel()
                with contextlib.suppress(OSError):
                    peer.stdin.close()
        while (event := self._events.get()) is not None:
            if event:  # a fetch that ended late says nothing
                said.append(event)
        listener.join()
        if failure is not None:
            raise failure
        return parse_said(said)

    def _listen(self, stdout: IO[bytes]) -> None:
        try:
            while line := stdout.readline(_LARGEST_LINE):
                self._events.put(line.decode(errors="replace").rstrip("\n"))
        except (OSError, ValueError):
            pass  # closed by the other side of this process
        finally:
            self._events.put(None)

    def _begin(self, stdin: IO[bytes]) -> None:
        for file in self._files.values():
            if file.segment is None:  # history files: small, and asked for before anything else
                _send(stdin, file.name, self._fetch(file))
        _send(stdin, "list", "".join(f"{name}\n" for name in self._files).encode())

    def _feed(self, stdin: IO[bytes], pool: ThreadPoolExecutor, said: list[str]) -> None:
        while True:
            coming = self._coming()
            for name in coming[:_FETCHING]:
                if name not in self._fetching:
                    self._fetching[name] = pool.submit(self._fetch, self._files[name])
                    self._fetching[name].add_done_callback(lambda _done: self._events.put(""))
            name = coming[0] if coming else ""
            first = self._fetching.get(name)
            # What cannot be had is an error only once the server needs it: the target may come before.
            if first is not None and first.done() and (first.exception() is None or self._wanted == name):
                _send(stdin, name, self._fetching.pop(name).result())
                self._in_spool.add(name)
                event = self._events.get_nowait() if not self._events.empty() else ""
            else:
                event = self._events.get()
            while event is not None:
                if event and self._heard(event, said):
                    return
                if self._events.empty():
                    break
                event = self._events.get()
            if event is None:
                self._events.put(None)
                return

    def _coming(self) -> list[str]:
        """What to send next, in order: what is waited for, then what follows."""
        # What a jump left behind stays in the spool; it must not add up.
        ahead = self._ahead if len(self._in_spool) < 2 * self._ahead else 0
        following = self._order[self._next : self._next + ahead]
        if self._wanted is not None and self._wanted not in following:
            following = [self._wanted, *following]
        return [name for name in following if name not in self._in_spool]

    def _heard(self, event: str, said: list[str]) -> bool:
        """Act on a line; True when the server needs no more."""
        word, _, name = event.partition(" ")
        if word in ("want", "took") and name in self._files:
            if word == "want":
                self._wanted = name  # it may be on its way already
            else:
                self._wanted = None if self._wanted == name else self._wanted
                self._in_spool.discard(name)
            if name in self._place:
                at = self._place[name]
                self._next = at + 1 if word == "took" else at
                self._drop_stale(at)
                self._on_replay(at + (word == "took"), len(self._order))
            return False
        if len(said) < _SAID_LINES:
            said.append(event)
        return event.startswith(("recovered", "ended ", "lost"))

    def _drop_stale(self, at: int) -> None:
        """What was fetched and is not near any more must not stay in memory: recovery jumped."""
        for name in list(self._fetching):
            place = self._place.get(name, at)
            if not at <= place <= at + self._ahead:
                self._fetching.pop(name).cancel()


def _send(stdin: IO[bytes], name: str, data: bytes) -> None:
    """One file and its mark, and filling up to a whole record."""
    parts = [_header(name, len(data)), data, bytes(-len(data) % _BLOCK), _header(f"{name}.ready", 0)]
    size = sum(len(part) for part in parts)
    filling = -(size + _BLOCK) % _RECORD
    parts += [_header("filling", filling), bytes(filling)]
    out = io.BytesIO()
    for part in parts:
        if len(part) > 1 << 16:
            stdin.write(out.getvalue())
            out = io.BytesIO()
            stdin.write(part)
        else:
            out.write(part)
    stdin.write(out.getvalue())
    stdin.flush()


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.USTAR_FORMAT)
