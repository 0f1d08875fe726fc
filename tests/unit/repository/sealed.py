"""Objects for tests: sealing bytes into a store in memory, and reading them with as little of Recoup as possible."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from recoup.engines.engine import Content
from recoup.repository.frames import zstd
from recoup.repository.index import Index
from recoup.repository.object_reader import ObjectReader, load_index
from recoup.repository.object_writer import ObjectSealer, SealedObject
from recoup.repository.seal import Key
from recoup.storage.memory import MemoryStore

KEY = Key.from_text("00112233445566778899aabbccddeeff" * 2)
OTHER_KEY = Key.from_text("ff" * 32)
OBJECT_KEY = "artefacts/postgres/base/1/base.tar.zst.enc"
INDEX_KEY = "artefacts/postgres/base/1/base.tar.index.enc"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a manifest says of an index."""

    key: str
    stored_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """An object and its index, in a store of their own, with what a manifest would say of them."""

    object_bytes: bytes
    made: SealedObject
    sealing_key: Key = KEY
    store: MemoryStore = field(default_factory=MemoryStore)
    key: str = OBJECT_KEY

    @property
    def stored_bytes(self) -> int:
        return self.made.stored_bytes

    @property
    def plain_bytes(self) -> int:
        return self.made.plain_bytes

    @property
    def index(self) -> Reference:
        return Reference(INDEX_KEY, len(self.made.index), self.made.index_sha256)

    def load_index(self, key: Key | None = None) -> Index:
        return load_index(self.store, self, key=key or self.sealing_key)

    def reader(self, *stores: MemoryStore, workers: int = 2) -> ObjectReader:
        return ObjectReader(
            stores or self.store, self.key, key=self.sealing_key, index=self.load_index(), workers=workers
        )


def pieces(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """Cut ``data`` into pieces of the sizes given, and one with the rest."""
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def seal_bytes(
    data: bytes,
    *,
    compression: str = "zstd",
    content: Content = Content.OPAQUE,
    frame_bytes: int = 4096,
    sizes: Sequence[int] = (),
    key: Key = KEY,
) -> Sealed:
    """Seal ``data``, written in pieces of ``sizes``, into a fresh store."""
    blocks: list[bytes] = []
    with ObjectSealer(
        key, blocks.append, compression=compression, content=content, frame_bytes=frame_bytes, workers=2
    ) as sealer:
        for piece in pieces(data, sizes):
            sealer.write(piece)
        made = sealer.finish()
    sealed = Sealed(b"".join(blocks), made, key)
    sealed.store.put(OBJECT_KEY, sealed.object_bytes)
    sealed.store.put(INDEX_KEY, made.index)
    assert made.stored_bytes == len(sealed.object_bytes)
    assert made.sha256 == hashlib.sha256(sealed.object_bytes).hexdigest()
    return sealed


def read_as_stock_tools_do(object_bytes: bytes, compression: str, key: Key = KEY) -> bytes:
    """What ``openssl enc -d … | zstd -d`` or ``| gunzip`` would print, by the same libraries, without Recoup."""
    assert object_bytes[:8] == b"Salted__"
    derived = hashlib.pbkdf2_hmac("sha256", key.text.reveal().encode(), object_bytes[8:16], key.iterations, 48)
    plain = Cipher(AES256(derived[:32]), CBC(derived[32:])).decryptor().update(object_bytes[16:])
    assert 1 <= plain[-1] <= 16
    assert plain.endswith(plain[-1:] * plain[-1])
    packed = plain[: -plain[-1]]
    return gzip.decompress(packed) if compression == "gzip" else zstd.decompress(packed)


def tar_of(members: Iterable[tuple[str, bytes]], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of plain files, as Python's own ``tarfile`` writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for path, data in members:
            entry = tarfile.TarInfo(path)
            entry.size, entry.mtime, entry.mode, entry.uid, entry.gid = len(data), 1_700_000_000, 0o640, 70, 71
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def each_frame_of(reader: ObjectReader, workers: int = 0) -> bytes:
    """The plain bytes as ``each_frame`` gives them, put in order. Each frame must come once."""
    frames: list[tuple[int, bytes]] = []
    reader.each_frame(lambda start, plain: frames.append((start, plain)), workers)
    assert len({start for start, _ in frames}) == len(frames)
    return b"".join(plain for _, plain in sorted(frames))
