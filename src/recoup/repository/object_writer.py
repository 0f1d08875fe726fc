"""Writing an object: plain bytes in, compressed and encrypted bytes out, and the index of what went where.

The order of work for each frame: fill (the caller's thread) → compress (a pool) → encrypt, digest, emit (one thread,
in order). Reasons for the sizes are in ``docs/decisions/``.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Self

from recoup.engines.engine import Content
from recoup.repository.frames import MAX_FRAME_BYTES, Compression, Packer, known, new_packer
from recoup.repository.index import IndexWriter, seal_index
from recoup.repository.seal import BLOCK, HEADER_BYTES, MAGIC, Key, encryptor, new_salt
from recoup.repository.tar_layout import TarScanner

MIN_FRAME_BYTES: Final = 512
_IN_FLIGHT_BYTES: Final = 24 << 20
_WORKERS_LIMIT: Final = 8
_ENDLESS: Final = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedObject:
    """A finished object and its index. Lengths are bytes, digests are lowercase hexadecimal sha256.

    ``stored_bytes`` and ``sha256`` are those of everything that was emitted; ``index`` is the index's own object,
    encrypted and ready to store.
    """

    plain_bytes: int
    stored_bytes: int
    sha256: str
    frames: int
    frame_bytes: int
    compression: Compression
    content: Content
    index: bytes
    index_sha256: str


def default_frame_bytes(content: Content) -> int:
    """The plain bytes of a frame that suit a stream, by measurement: see ``docs/decisions/``."""
    return 256 << 10 if content is Content.TAR else 1 << 20


class ObjectSealer:
    """Turns one stream of plain bytes into one object, and hands its bytes to ``emit`` in order.

    ``emit`` is called from one thread at a time, not the caller's. An error there or in the pool is raised by the
    next ``write`` or ``finish``, and by every one after it. As a context manager it aborts unless it was finished.
    Memory stays below about 64 MiB. Not for two threads at once.
    """

    def __init__(
        self,
        key: Key,
        emit: Callable[[bytes], None],
        *,
        compression: str = "zstd",
        level: int = 3,
        content: Content = Content.OPAQUE,
        frame_bytes: int | None = None,
        workers: int = 0,
    ) -> None:
        """``frame_bytes`` None is the default for the content; ``workers`` 0 as many as there are processors.

        Raise ``ValueError`` for a compression, level or frame size that the format does not have.
        """
        frame_bytes = frame_bytes or default_frame_bytes(content)
        if not MIN_FRAME_BYTES <= frame_bytes <= MAX_FRAME_BYTES:
            raise ValueError(f"frames of {frame_bytes} bytes")
        workers = min(workers or os.cpu_count() or 1, _WORKERS_LIMIT)
        self._key, self._compression, self._content = key, known(compression), content
        self._frame_bytes = frame_bytes
        self._packers: SimpleQueue[Packer] = SimpleQueue()
        for _ in range(workers):
            self._packers.put(new_packer(self._compression, level, pages=content is Content.TAR))
        self._pool = ThreadPoolExecutor(workers, "recoup-compress")
        self._line = ThreadPoolExecutor(1, "recoup-seal")
        self._pending: deque[tuple[Future[None], bytearray]] = deque()
        self._pending_limit = min(max(workers + 2, _IN_FLIGHT_BYTES // frame_bytes), 64)
        self._free: list[bytearray] = []
        self._index = IndexWriter()
        self._sealing = _Sealing(key, emit, self._index)
        self._scanner = TarScanner() if content is Content.TAR else None
        # A tar alternates between bytes that only pass and pieces the scanner must see; anything else only passes.
        self._passing = 0 if self._scanner else _ENDLESS
        self._wanted = self._scanner.needed if self._scanner else 0
        self._piece = bytearray()
        self._frame = bytearray(frame_bytes)
        self._filled = 0
        # How far ``write`` may go before anything but copying has to happen, and how far that was at first.
        self._room = self._given = min(frame_bytes, self._passing)
        self._plain_bytes = 0  # up to the beginning of the present frame
        self._error: BaseException | None = None
        self._ended = False

    def write(self, data: bytes | memoryview) -> None:
        """Append plain bytes; the caller may reuse the buffer afterwards. Blocks while ``emit`` is behind.

        Raise what ``emit`` raised, or ``EngineError`` for a stream that should be a tar and is not.
        """
        if self._error is not None or self._ended:
            self._refuse()
        length = len(data)
        if length <= self._room:  # most calls end here
            self._frame[self._filled : self._filled + length] = data
            self._filled += length
            self._room -= length
            return
        try:
            self._write_slowly(memoryview(data))
        except BaseException as error:
            self._error = error
            raise

    def finish(self) -> SealedObject:
        """End the stream and return what was made, after everything was emitted. Raise as ``write`` does."""
        if self._error is not None or self._ended:
            self._refuse()
        try:
            if self._scanner is not None:
                self._scanner.check_end(self._plain_bytes + self._filled)
            if self._filled or self._plain_bytes == 0:
                self._cut()
            while self._pending:
                self._reclaim()
            self._line.submit(self._sealing.end).result()
            sealed = self._sealed()
        except BaseException as error:
            self._error = error
            raise
        self._ended = True
        self._stop()
        return sealed

    def abort(self) -> None:
        """Give up. After it returns ``emit`` is not called again. Harmless when repeated and after ``finish``."""
        self._ended = True
        self._sealing.stopped = True
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _write_slowly(self, data: memoryview) -> None:
        """Append bytes that reach beyond the present frame, or to the next header of a tar."""
        self._passing -= self._given - self._room
        at, length = 0, len(data)
        while at < length:
            if self._filled == self._frame_bytes:
                self._cut()
            left = self._wanted - len(self._piece) if self._wanted else self._passing
            take = min(left, length - at, self._frame_bytes - self._filled)
            part = data[at : at + take]
            self._frame[self._filled : self._filled + take] = part
            self._filled += take
            at += take
            if not self._wanted:
                self._passing -= take
                if self._passing == 0:
                    self._wanted = self._scanner.needed if self._scanner else 0
                continue
            self._piece += part
            if take == left:
                self._show_piece()
        self._room = self._given = 0 if self._wanted else min(self._frame_bytes - self._filled, self._passing)

    def _show_piece(self) -> None:
        """Let the scanner see the header that has come in, and begin a frame where a large member's data begin."""
        assert self._scanner is not None
        member = self._scanner.see(bytes(self._piece))
        self._piece.clear()
        self._passing = self._scanner.passing
        self._wanted = 0 if self._passing else self._scanner.needed
        if member is None:
            return
        self._index.add_member(member)
        if self._passing and member.size_bytes >= self._frame_bytes:
            self._cut()

    def _cut(self) -> None:
        """Send the present frame on its way and take a fresh buffer; wait when too many are under way."""
        length, buffer = self._filled, self._frame
        packing = self._pool.submit(self._pack, buffer, length)
        self._pending.append((self._line.submit(self._sealing.add, packing, length), buffer))
        self._plain_bytes += length
        self._filled = 0
        while self._pending and (len(self._pending) >= self._pending_limit or self._pending[0][0].done()):
            self._reclaim()
        self._frame = self._free.pop() if self._free else bytearray(self._frame_bytes)

    def _reclaim(self) -> None:
        """Wait for the oldest frame under way and take its buffer back. Raise what went wrong with it."""
        sealed, buffer = self._pending.popleft()
        sealed.result()
        self._free.append(buffer)

    def _pack(self, buffer: bytearray, length: int) -> bytes:
        packer = self._packers.get()
        try:
            return packer.pack(memoryview(buffer)[:length], length)
        finally:
            self._packers.put(packer)

    def _sealed(self) -> SealedObject:
        sealing = self._sealing
        frames, packed = self._index.finish(
            frame_bytes=self._frame_bytes,
            plain_bytes=self._plain_bytes,
            cipher_bytes=sealing.cipher_bytes,
            compression=self._compression,
            content=self._content,
            salt=sealing.salt,
        )
        index = seal_index(self._key, packed)
        return SealedObject(
            plain_bytes=self._plain_bytes,
            stored_bytes=HEADER_BYTES + sealing.cipher_bytes,
            sha256=sealing.whole.hexdigest(),
            frames=frames,
            frame_bytes=self._frame_bytes,
            compression=self._compression,
            content=self._content,
            index=index,
            index_sha256=hashlib.sha256(index).hexdigest(),
        )

    def _refuse(self) -> None:
        if self._error is not None:
            raise self._error
        raise ValueError("the object was finished or aborted")

    def _stop(self) -> None:
        self._line.shutdown(wait=True, cancel_futures=True)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
        self._free.clear()


class _Sealing:
    """The last part of the work, in the order of the object: encrypt, digest, emit. One thread calls it."""

    def __init__(self, key: Key, emit: Callable[[bytes], None], index: IndexWriter) -> None:
        self.salt = new_salt()
        self.cipher_bytes = 0
        self.whole = hashlib.sha256()
        self.stopped = False
        self._emit = emit
        self._index = index
        self._context = encryptor(*key.derive(self.salt))
        self._before = MAGIC + self.salt  # the sixteen bytes before the next frame
        # The last frame's row is held back: the padding at the end of the object belongs to it.
        self._row: tuple[int, int] | None = None
        self._digest = hashlib.sha256()

    def add(self, packing: Future[bytes], plain_bytes: int) -> None:
        """Seal the next frame, when it is compressed. After an error nothing more is done."""
        packed = packing.result()
        if self.stopped:
            return
        try:
            if self._row is None:
                self._send(self._before)
            else:
                self._index.add_frame(*self._row, self._digest.digest())
            cipher = self._context.update(packed)
            self._digest = hashlib.sha256(self._before)
            self._digest.update(cipher)
            self._row = (plain_bytes, len(cipher))
            self._before = cipher[-BLOCK:]
            self.cipher_bytes += len(cipher)
            self._send(cipher)
        except BaseException:
            self.stopped = True
            raise

    def end(self) -> None:
        """Add the padding block: every frame is whole blocks, so it is always sixteen bytes of sixteen."""
        assert self._row is not None, "an object has one frame at least"
        padding = self._context.update(bytes([BLOCK]) * BLOCK)
        self._digest.update(padding)
        plain_bytes, cipher_bytes = self._row
        self._index.add_frame(plain_bytes, cipher_bytes + BLOCK, self._digest.digest())
        self.cipher_bytes += BLOCK
        self._send(padding)

    def _send(self, block: bytes) -> None:
        self.whole.update(block)
        self._emit(block)
