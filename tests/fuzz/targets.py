"""Fuzz targets: for any input, a reader gives an answer or raises a ``RecoupError``, and nothing else.

``make test`` feeds them by hypothesis with a fixed seed. For as long as you like, guided by coverage, with Python's
own fuzzer installed (``pip install atheris``): ``python -m tests.fuzz.targets fuzz_index -max_total_time=600``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from recoup.engines.engine import Content
from recoup.kernel.errors import RecoupError
from recoup.repository.frames import zstd
from recoup.repository.index import MAGIC, ROW, Index
from recoup.repository.manifest import IndexReference, Manifest, StoredObject, parse, to_body
from recoup.repository.object_reader import ObjectReader, load_index, scrub
from recoup.repository.seal import authenticate, open_authenticated, seal
from recoup.repository.tar_layout import TarScanner
from recoup.storage.memory import MemoryStore
from recoup.storage.object_store import check_key
from tests.unit.repository.sealed import INDEX_KEY, KEY, OBJECT_KEY, Reference, seal_bytes

_PLAIN = b"".join(number.to_bytes(2, "big") for number in range(3000))
_SEALED = seal_bytes(_PLAIN, frame_bytes=1024)
_INDEX = _SEALED.load_index()
_AUTHENTIC = authenticate(KEY, "manifest", "manifests/x.json", b'{"recoup_manifest": 1}\n')
_MANIFEST_BODY = json.dumps(
    to_body(
        Manifest(
            id="20261123-020000-k7f3q2",
            system="Fuzzed",
            service="postgres",
            engine="postgres",
            kind="base",
            label=None,
            begun=datetime(2026, 11, 23, 2, tzinfo=UTC),
            ended=datetime(2026, 11, 23, 3, tzinfo=UTC),
            tool={"recoup": "0.1.0"},
            key_id=KEY.id,
            iterations=KEY.iterations,
            objects=(
                StoredObject(
                    stream="base.tar",
                    name="base.tar.zst.enc",
                    key="artefacts/postgres/base/x/base.tar.zst.enc",
                    stored_bytes=10,
                    sha256="0" * 64,
                    plain_bytes=10,
                    content=Content.TAR,
                    compression="zstd",
                    frame_bytes=1024,
                    index=IndexReference(name="i", key="artefacts/i", stored_bytes=1, sha256="0" * 64),
                ),
            ),
            facts={"a": 1},
            fingerprint=None,
            left_out=(("what", "why"),),
        )
    ),
    indent=1,
    sort_keys=True,
).encode()
_HEADER = (
    b'{"cipher_bytes": 112, "compression": "zstd", "content": "tar", "frame_bytes": 4096, "frames": 1, '
    b'"members": 3, "plain_bytes": 100, "salt": "0000000000000000"}'
)
_HEAD = MAGIC + struct.pack(">I", len(_HEADER)) + _HEADER


def fuzz_authenticated(data: bytes) -> None:
    """Any bytes in the place of a manifest, and a real one with any bytes written over it."""
    for hostile in (data, _over(_AUTHENTIC, data)):
        with contextlib.suppress(RecoupError):
            body = open_authenticated(KEY, "manifest", "manifests/x.json", hostile)
            assert hostile == _AUTHENTIC, f"passed for authentic: {body!r}"


def fuzz_manifest(data: bytes) -> None:
    """An authentic manifest whose body is any bytes, or a real one in which any bytes replace what follows a colon.

    Whoever has the key could write such a thing; it must be refused and never be half believed.
    """
    for body in (data, *_mutated_bodies(data)):
        sealed = authenticate(KEY, "manifest", "manifests/20261123-020000-k7f3q2.json", body.rstrip(b"\n") + b"\n")
        with contextlib.suppress(RecoupError):
            found = parse(sealed, KEY, "20261123-020000-k7f3q2")
            assert found.id == "20261123-020000-k7f3q2"
            assert all(check_key(stored.key) and check_key(stored.index.key) for stored in found.objects)


def _mutated_bodies(data: bytes) -> list[bytes]:
    if not data:
        return []
    at = data[0] % _MANIFEST_BODY.count(b": ")
    parts = _MANIFEST_BODY.split(b": ")
    head, tail = b": ".join(parts[: at + 1]), b": ".join(parts[at + 1 :])
    values = (
        data[1:],
        json.dumps(data[1:].decode("latin-1")).encode(),
        b"[]",
        b"{}",
        b"null",
        b"-1",
        b"1e999",
        b"[[[1]]]",
    )
    rest = tail[tail.find(b"\n") :]
    return [head + b": " + value + b"," * (tail.split(b"\n")[0].endswith(b",")) + rest for value in values]


def fuzz_index(data: bytes) -> None:
    """Any bytes as a decrypted index: as they are, compressed, behind a right header, and as member lines."""
    row = ROW.pack(100, 112, bytes(32))
    for hostile in (data, zstd.compress(data), zstd.compress(MAGIC + data), zstd.compress(_HEAD + row + data)):
        with contextlib.suppress(RecoupError):
            index = Index.parse(hostile)
            assert sum(frame.plain_bytes for frame in index.rows()) == index.plain_bytes
            assert len(list(index.members())) == index.member_count


def fuzz_object(data: bytes) -> None:
    """A real object with any bytes written over it, and any bytes in its place."""
    for hostile in (data, _over(_SEALED.object_bytes, data)):
        store = MemoryStore()
        store.put(OBJECT_KEY, hostile)
        for act in (_read_whole, _scrub_whole):
            with contextlib.suppress(RecoupError):
                act(store)
                assert hostile == _SEALED.object_bytes, "damage went unnoticed"


def fuzz_sealed_frame(data: bytes) -> None:
    """Any bytes that were sealed with the right key and have the right digests, in the place of a frame."""
    plain_bytes = sum(data[:2]) * 8
    for packed in (data, zstd.compress(data[2:]), b"\x28\xb5\x2f\xfd" + data[2:]):
        sealed = seal(KEY, packed + bytes(-len(packed) % 16))
        head = _head_for(plain_bytes, len(sealed) - 16, sealed[8:16])
        index = seal(KEY, zstd.compress(head + ROW.pack(plain_bytes, len(sealed) - 16, _sha256(sealed))))
        store = MemoryStore()
        store.put(OBJECT_KEY, sealed)
        store.put(INDEX_KEY, index)
        stored = _Stored(OBJECT_KEY, len(sealed), plain_bytes, Reference(INDEX_KEY, len(index), _sha256(index).hex()))
        with contextlib.suppress(RecoupError):
            reader = ObjectReader(store, OBJECT_KEY, key=KEY, index=load_index(store, stored, key=KEY), workers=1)
            assert len(b"".join(reader.read())) == plain_bytes


def fuzz_tar(data: bytes) -> None:
    """Any bytes as a tar stream, as they are and with right checksums in every block."""
    for hostile in (data, _with_checksums(data)):
        with contextlib.suppress(RecoupError):
            scanner, at, members = TarScanner(), 0, 0
            while scanner.needed and at + scanner.passing + scanner.needed <= len(hostile):
                at += scanner.passing
                piece = hostile[at : at + scanner.needed]
                at += len(piece)
                member = scanner.see(piece)
                if member is not None:
                    members += 1
                    assert member.offset == at
            scanner.check_end(len(hostile))
            assert members <= len(hostile) // 512


TARGETS: list[Callable[[bytes], None]] = [
    fuzz_authenticated,
    fuzz_manifest,
    fuzz_index,
    fuzz_object,
    fuzz_sealed_frame,
    fuzz_tar,
]


def _read_whole(store: MemoryStore) -> None:
    assert b"".join(ObjectReader(store, OBJECT_KEY, key=KEY, index=_INDEX, workers=1).read()) == _PLAIN


def _scrub_whole(store: MemoryStore) -> None:
    scrub(store, OBJECT_KEY, _INDEX)


class _Stored:
    def __init__(self, key: str, stored_bytes: int, plain_bytes: int, index: Reference) -> None:
        self.key, self.stored_bytes, self.plain_bytes, self.index = key, stored_bytes, plain_bytes, index


def _over(whole: bytes, data: bytes) -> bytes:
    """``whole`` with ``data`` written over it, at a place that ``data`` chooses."""
    at = int.from_bytes(data[:3], "big") % len(whole)
    return whole[:at] + data[3:] + whole[at + len(data[3:]) :]


def _head_for(plain_bytes: int, cipher_bytes: int, salt: bytes) -> bytes:
    header = (
        f'{{"cipher_bytes": {cipher_bytes}, "compression": "zstd", "content": "opaque", "frame_bytes": 4096, '
        f'"frames": 1, "members": 0, "plain_bytes": {plain_bytes}, "salt": "{salt.hex()}"}}'
    ).encode()
    return MAGIC + struct.pack(">I", len(header)) + header


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _with_checksums(data: bytes) -> bytes:
    blocks = []
    for at in range(0, len(data), 512):
        block = data[at : at + 512].ljust(512, b"\0")
        checksum = sum(block[:148]) + sum(block[156:]) + 8 * 0x20
        blocks.append(block[:148] + b"%06o\0 " % checksum + block[156:])
    return b"".join(blocks)


def main(arguments: list[str]) -> None:
    """Run one target under atheris: its name, then libFuzzer's own options."""
    import atheris

    chosen = {target.__name__: target for target in TARGETS}[arguments[1]]
    atheris.instrument_all()
    atheris.Setup([arguments[0], *arguments[2:]], chosen)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
