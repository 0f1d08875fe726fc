"""Files that scripts made with gzip and the real openssl are recognised by their bytes."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from recoup.engines.postgres.legacy_file import Content, open_legacy_file
from recoup.kernel.errors import DamageError, RecoupError, StorageError, UnknownFormatError, WrongKeyError
from recoup.kernel.secret import Secret
from tests.real import require

SQL = b"--\n-- PostgreSQL database dump\n--\n" + b"INSERT INTO t VALUES (1, 'caf\xc3\xa9');\n" * 100_000
KEY = Secret("correct horse 'battery' staple")


def sealed(plain: bytes, path: Path, *options: str, key: Secret = KEY) -> Path:
    openssl = str(require("openssl"))
    done = subprocess.run(
        [openssl, "enc", "-aes-256-cbc", "-salt", *options, "-k", key.reveal()], input=plain, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    path.write_bytes(done.stdout)
    return path


@pytest.mark.parametrize(
    ("options", "derivation"),
    [
        ([], "EVP_BytesToKey sha256"),
        (["-md", "md5"], "EVP_BytesToKey md5"),
        (["-pbkdf2"], "PBKDF2 10000"),
        (["-pbkdf2", "-iter", "600000"], "PBKDF2 600000"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_way_openssl_derived_a_key_is_found(
    tmp_path: Path, options: list[str], derivation: str, zipped: bool
) -> None:
    path = sealed(gzip.compress(SQL) if zipped else SQL, tmp_path / "some.name", *options)
    file = open_legacy_file(path, KEY)
    assert (file.content, file.gzip, file.derivation) == (Content.SQL, zipped, derivation)
    assert b"".join(file.pieces()) == SQL
    assert KEY.reveal() not in repr(file)
    assert "key_and_iv" not in repr(file)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_every_length_comes_back_exactly(tmp_path: Path, size: int) -> None:
    plain = (b"SELECT 1;\n" * (size // 10 + 1))[:size]
    assert b"".join(open_legacy_file(sealed(plain, tmp_path / "f"), KEY).pieces()) == plain


def test_plain_and_gzipped_files_need_no_key(tmp_path: Path) -> None:
    for name, data, zipped in (("a.sql", SQL, False), ("b.sql.gz", gzip.compress(SQL), True)):
        (tmp_path / name).write_bytes(data)
        file = open_legacy_file(tmp_path / name, None)
        assert (file.gzip, file.derivation) == (zipped, None)
        assert b"".join(file.pieces()) == SQL


def test_gzip_of_several_members_and_padding_is_read_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(gzip.compress(SQL[:1000]) + gzip.compress(SQL[1000:]) + b"\0" * 512)
    assert b"".join(open_legacy_file(path, None).pieces()) == SQL


def test_an_archive_is_recognised(tmp_path: Path) -> None:
    path = sealed(b"PGDMP\x01\x0e\x00" + b"\0" * 100, tmp_path / "f")
    assert open_legacy_file(path, KEY).content is Content.ARCHIVE


def test_a_wrong_key_is_never_taken_for_a_right_one(tmp_path: Path) -> None:
    path = sealed(gzip.compress(SQL), tmp_path / "f")
    for word in ("wrong", KEY.reveal() + " "):
        with pytest.raises(WrongKeyError):
            open_legacy_file(path, Secret(word))
    with pytest.raises(WrongKeyError, match="no key was given"):
        open_legacy_file(path, None)


def test_a_cut_file_is_damaged_wherever_it_was_cut(tmp_path: Path) -> None:
    path = sealed(gzip.compress(SQL), tmp_path / "f")
    whole = path.read_bytes()
    for length in (0, 8, 16, 20, 31, 32, 48, 4096, len(whole) // 2, len(whole) - 16, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(RecoupError) as refused:
            b"".join(open_legacy_file(path, KEY).pieces())
        assert isinstance(refused.value, (DamageError, WrongKeyError, UnknownFormatError)), length
        if length >= 4096:
            assert isinstance(refused.value, DamageError), length


def test_a_changed_byte_inside_gzip_is_found(tmp_path: Path) -> None:
    path = sealed(gzip.compress(SQL), tmp_path / "f")
    whole = bytearray(path.read_bytes())
    for position in range(100, len(whole), 997):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises((DamageError, WrongKeyError)):
            b"".join(open_legacy_file(path, KEY).pieces())


def test_something_else_is_refused_with_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\x7fELF\x02\x01" + bytes(200))
    with pytest.raises(UnknownFormatError) as refused:
        open_legacy_file(tmp_path / "f", None)
    assert ".sql" in str(refused.value.hint)
    with pytest.raises(StorageError, match="cannot read"):
        open_legacy_file(tmp_path / "missing", None)
