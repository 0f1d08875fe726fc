"""Read backup files that other scripts made: ``.sql.gz.enc``, ``.sql.enc``, ``.sql.gz``, ``.sql``, ``.dump``.

What a file is, its bytes say, not its name. ``openssl enc`` files begin with ``Salted__`` and 8 bytes of salt (openssl,
apps/enc.c); the key and the IV come from the password by ``EVP_BytesToKey`` with one round of SHA-256 (openssl 1.1.0
and newer without ``-pbkdf2``) or MD5 (older), or by PBKDF2-HMAC-SHA256 (``-pbkdf2``). Which one, is found by trying:
the first block must look like a dump.

Such files are not authenticated. gzip's checksum finds accidents; plain ``.sql.enc`` has not even that.
"""

from __future__ import annotations

import enum
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from recoup.kernel.errors import DamageError, StorageError, UnknownFormatError, WrongKeyError
from recoup.kernel.secret import Secret

_SALTED = b"Salted__"
_GZIP = b"\x1f\x8b\x08"
_ARCHIVE = b"PGDMP"
_BLOCK = 16
_PIECE = 1 << 20
_LOOK = 4096
_KEY_AND_IV = 48


class Content(enum.StrEnum):
    """What is inside, after decryption and decompression."""

    SQL = "sql"
    ARCHIVE = "archive"  #: pg_dump's custom format


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyFile:
    """A recognised file. ``derivation`` says how its key was made, or None when it is not encrypted."""

    path: Path
    content: Content
    gzip: bool
    derivation: str | None
    key_and_iv: bytes | None
    size_bytes: int

    def __repr__(self) -> str:  # never shows the key
        return f"LegacyFile({str(self.path)!r}, {self.content.value}, gzip={self.gzip}, {self.derivation})"

    def pieces(self) -> Iterator[bytes]:
        """The plain content, in pieces of about 1 MiB.

        Raise ``DamageError`` when the file was cut or changed, as far as its format can tell; ``StorageError`` when
        it cannot be read.
        """
        raw = _read(self.path, len(_SALTED) * 2 if self.key_and_iv else 0)
        plain = raw if self.key_and_iv is None else _decrypted(raw, self.key_and_iv, self.path)
        return _unzipped(plain, self.path) if self.gzip else plain


def open_legacy_file(path: Path, key: Secret | None) -> LegacyFile:
    """Recognise a file by its first bytes.

    Raise ``WrongKeyError`` when it is encrypted and ``key`` is missing or wrong, ``UnknownFormatError`` when it is
    nothing we know, ``DamageError`` when it is empty or too short, ``StorageError`` when it cannot be read.
    """
    try:
        size = path.stat().st_size
    except OSError as failure:
        raise StorageError(
            f"cannot read {path}: {failure.strerror}",
            hint="Check its path and rights. An artefact is named by its id, as `recoup list` shows it.",
        ) from failure
    if size == 0:
        raise DamageError(f"{path} is empty")
    head = b"".join(_read(path, 0, most=_LOOK + len(_SALTED) * 2))
    if not head.startswith(_SALTED):
        content, gzip = _recognise(head, path)
        return LegacyFile(path=path, content=content, gzip=gzip, derivation=None, key_and_iv=None, size_bytes=size)
    if size < len(_SALTED) * 2 + _BLOCK:
        raise DamageError(f"{path} is cut: {size} bytes cannot hold an encrypted file")
    if key is None:
        raise WrongKeyError(f"{path} is encrypted, and no key was given", hint="Give the key it was made with.")
    salt, start = head[8:16], head[16:]
    start = start[: len(start) // _BLOCK * _BLOCK]
    for name, material in _derivations(key.reveal().encode(), salt):
        plain = Cipher(AES(material[:32]), CBC(material[32:])).decryptor().update(start)
        if len(start) + 16 >= size:
            plain = plain[: -plain[-1]] if 1 <= plain[-1] <= _BLOCK else plain
        try:
            content, gzip = _recognise(plain, path)
        except UnknownFormatError:
            continue
        return LegacyFile(path=path, content=content, gzip=gzip, derivation=name, key_and_iv=material, size_bytes=size)
    raise WrongKeyError(
        f"the key does not open {path}",
        hint="It was tried as openssl's -k with SHA-256, MD5 and -pbkdf2. Is it the key of the time of the backup?",
    )


def _derivations(password: bytes, salt: bytes) -> Iterator[tuple[str, bytes]]:
    """Each way openssl made 32 bytes of key and 16 of IV, the likeliest and cheapest first."""
    for digest in ("sha256", "md5"):
        material = block = b""
        while len(material) < _KEY_AND_IV:
            block = hashlib.new(digest, block + password + salt, usedforsecurity=False).digest()
            material += block
        yield f"EVP_BytesToKey {digest}", material[:_KEY_AND_IV]
    for iterations in (10_000, 600_000):
        material = hashlib.pbkdf2_hmac("sha256", password, salt, iterations, _KEY_AND_IV)
        yield f"PBKDF2 {iterations}", material


def _recognise(head: bytes, path: Path) -> tuple[Content, bool]:
    if head.startswith(_GZIP):
        try:
            inner = zlib.decompressobj(wbits=31).decompress(head, _LOOK)
        except zlib.error as damage:
            raise DamageError(f"{path} begins like gzip and is not: {damage}") from damage
        return _recognise_plain(inner, path), True
    return _recognise_plain(head, path), False


def _recognise_plain(head: bytes, path: Path) -> Content:
    if head.startswith(_ARCHIVE):
        return Content.ARCHIVE
    # Text holds no control characters but tab, line feed, form feed and carriage return.
    if not any(byte < 0x20 and byte not in b"\t\n\f\r" for byte in head):
        return Content.SQL
    raise UnknownFormatError(
        f"{path} is neither SQL text nor a pg_dump archive",
        hint="Known are .sql, .dump (pg_dump -Fc), either of them gzipped, and openssl enc -aes-256-cbc around those.",
    )


def _read(path: Path, start: int, *, most: int | None = None) -> Iterator[bytes]:
    try:
        with open(path, "rb") as handle:
            handle.seek(start)
            if most is not None:
                yield handle.read(most)
                return
            while piece := handle.read(_PIECE):
                yield piece
    except OSError as failure:
        raise StorageError(f"cannot read {path}: {failure.strerror}") from failure


def _decrypted(pieces: Iterator[bytes], material: bytes, path: Path) -> Iterator[bytes]:
    """AES-256-CBC with PKCS#7 padding, which is taken off the last block."""
    decryptor = Cipher(AES(material[:32]), CBC(material[32:])).decryptor()
    held, size = b"", 0
    for piece in pieces:
        size += len(piece)
        plain = held + decryptor.update(piece)
        held = plain[-_BLOCK:]
        if len(plain) > _BLOCK:
            yield plain[:-_BLOCK]
    if size % _BLOCK or len(held) != _BLOCK:
        raise DamageError(f"{path} is cut: its encrypted part of {size} bytes is not a whole number of blocks")
    padding = held[-1]
    if not 1 <= padding <= _BLOCK or held[-padding:] != bytes([padding]) * padding:
        raise DamageError(f"{path} is damaged or cut: its last block does not end as openssl ends it")
    yield held[:-padding]


def _unzipped(pieces: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """gzip, also of several members; bounded, whatever the compression ratio."""
    inflater = zlib.decompressobj(wbits=31)
    whole = False
    for piece in pieces:
        data = piece
        while data:
            if inflater.eof:
                data = data.lstrip(b"\0")  # tapes and some tools pad with zeros
                if not data:
                    break
                inflater = zlib.decompressobj(wbits=31)
            try:
                plain = inflater.decompress(data, _PIECE)
            except zlib.error as damage:
                raise DamageError(f"{path} is damaged inside its gzip part: {damage}") from damage
            whole = inflater.eof
            data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            if plain:
                yield plain
    if not whole:
        raise DamageError(f"{path} is cut: its gzip part ends before its end")
