from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.postgres.backup_manifest import ChecksumKind, new_summer, parse_manifest
from recoup.engines.postgres.lsn import Lsn
from recoup.kernel.errors import DamageError, UnknownFormatError

FILES = (
    b'{ "Path": "base/5/1259", "Size": 106496, "Last-Modified": "2026-11-23 06:22:48 GMT", '
    b'"Checksum-Algorithm": "CRC32C", "Checksum": "6843D91a" },\n'
    b'{ "Encoded-Path": "f6", "Size": 0, "Last-Modified": "2026-11-23 06:22:48 GMT" }\n'
)


def sealed(
    version: int = 2, files: bytes = FILES, head: bytes = b'"System-Identifier": 7711248585760442998,\n'
) -> bytes:
    body = (
        b'{ "PostgreSQL-Backup-Manifest-Version": %d,\n' % version
        + head
        + b'"Files": [\n'
        + files
        + b'],\n"WAL-Ranges": [\n{ "Timeline": 1, "Start-LSN": "0/3000028", "End-LSN": "0/3000120" }\n],\n'
    )
    return body + b'"Manifest-Checksum": "%s"}\n' % hashlib.sha256(body).hexdigest().encode()


def test_a_manifest_is_read_file_by_file() -> None:
    manifest = parse_manifest([sealed()])
    assert manifest.version == 2
    assert manifest.system_identifier == "7711248585760442998"
    table = manifest.files["base/5/1259"]
    assert (table.size_bytes, table.kind, table.checksum) == (106496, ChecksumKind.CRC32C, "6843d91a")
    assert manifest.files["\udcf6"].kind is ChecksumKind.NONE
    assert [(r.timeline, r.start, r.end) for r in manifest.wal_ranges] == [
        (1, Lsn.parse("0/3000028"), Lsn.parse("0/3000120"))
    ]


def test_version_1_has_no_system_identifier() -> None:
    assert parse_manifest([sealed(version=1, head=b"")]).system_identifier is None


@given(st.lists(st.integers(1, 300), max_size=8))
def test_how_a_manifest_is_cut_into_pieces_makes_no_difference(cuts: list[int]) -> None:
    data, pieces = sealed(), []
    for size in cuts:
        pieces.append(data[:size])
        data = data[size:]
    assert parse_manifest([*pieces, data]) == parse_manifest([sealed()])


@pytest.mark.parametrize("at", range(0, len(sealed()) - 90, 7))
def test_a_flipped_bit_anywhere_is_noticed(at: int) -> None:
    data = bytearray(sealed())
    data[at] ^= 1
    with pytest.raises(DamageError):
        parse_manifest([bytes(data)])


@pytest.mark.parametrize("length", [0, 1, 60, 200, len(sealed()) - 90])
def test_a_manifest_cut_off_is_damage(length: int) -> None:
    with pytest.raises(DamageError, match="cut off"):
        parse_manifest([sealed()[:length]])


def test_a_manifest_that_goes_on_is_damage() -> None:
    with pytest.raises(DamageError, match="goes on"):
        parse_manifest([sealed() + b"\n"])


def test_a_version_from_the_future_is_not_guessed_at() -> None:
    with pytest.raises(UnknownFormatError, match="version 3"):
        parse_manifest([sealed(version=3)])


def test_a_file_that_is_listed_twice_is_refused() -> None:
    twice = FILES.splitlines(keepends=True)[0] * 2
    with pytest.raises(UnknownFormatError, match="twice"):
        parse_manifest([sealed(files=twice)])


def test_crc32c_is_written_as_its_bytes_lie_in_memory() -> None:
    # RFC 3720, B.4: 32 bytes of zeros have the CRC AA 36 91 8A.
    summer = new_summer(ChecksumKind.CRC32C)
    summer.update(bytes(20))
    summer.update(bytes(12))
    assert summer.hexdigest() == "aa36918a"
    assert new_summer(ChecksumKind.SHA256).hexdigest() == hashlib.sha256().hexdigest()
