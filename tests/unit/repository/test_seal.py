"""The key and the authenticated texts."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.kernel.errors import DamageError, RecoupError, UnknownFormatError, WrongKeyError
from recoup.repository.seal import Key, authenticate, key_id_of, new_salt, open_authenticated, seal, unseal
from tests.real import require
from tests.unit.repository.sealed import KEY, OTHER_KEY

BODY = b'{\n "id": "20261123-020000-abc123"\n}\n'
WHERE = "manifests/20261123-020000-abc123.json"


@pytest.mark.parametrize("text", ["0123456789abcdef" * 4, "correct horse battery staple", "Schlüssel für übermorgen"])
def test_openssl_derives_the_same_authentication_key_and_key_id(text: str, tmp_path: Path) -> None:
    key = Key.from_text(text)
    (tmp_path / "key").write_text(text + "\n", encoding="utf-8")
    options = ["-S", b"recoupM1".hex(), "-P", "-pass", f"file:{tmp_path / 'key'}", "-iter", str(key.iterations)]
    said = subprocess.run(
        [str(require("openssl")), "enc", "-aes-256-cbc", "-pbkdf2", "-md", "sha256", *options],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = dict(line.replace(" ", "").split("=") for line in said.splitlines())
    assert values["key"].lower() == key.authentication_key.hex()
    assert values["iv"].lower() == key.id


def test_64_hexadecimal_characters_are_a_random_key_and_anything_else_a_passphrase() -> None:
    assert (KEY.is_random, KEY.iterations) == (True, 10_000)
    for text in ("ab" * 31, "AB" * 32, "ab" * 33, " " + "ab" * 32):
        key = Key.from_text(text)
        assert (key.is_random, key.iterations) == (False, 600_000)


def test_a_generated_key_is_random_and_never_the_same() -> None:
    one, two = Key.generate(), Key.generate()
    assert one.is_random
    assert one.id != two.id


def test_only_the_first_line_of_a_key_file_counts() -> None:
    assert Key.from_text(KEY.text.reveal() + "\nrecoup key, made 2026\n") == KEY


@pytest.mark.parametrize("text", ["", "\n", "abc\r\n", "a\tb", "a\0b", "x" * 1001, "\udc80"])
def test_a_text_that_openssl_would_read_differently_is_refused(text: str) -> None:
    with pytest.raises(WrongKeyError) as refused:
        Key.from_text(text)
    assert refused.value.hint


def test_no_text_form_of_a_key_shows_a_secret() -> None:
    for shown in (repr(KEY), str(KEY), f"{KEY}"):
        assert KEY.text.reveal() not in shown
        assert KEY.authentication_key.hex() not in shown
        assert repr(KEY.authentication_key) not in shown
        assert KEY.id in shown


def test_salts_differ_and_a_salt_has_eight_bytes() -> None:
    assert len({new_salt() for _ in range(100)}) == 100
    with pytest.raises(ValueError, match="a salt has 8 bytes"):
        KEY.derive(b"short")


@given(plain=st.binary(max_size=200))
def test_what_was_sealed_unseals(plain: bytes) -> None:
    assert unseal(KEY, seal(KEY, plain), what="x") == plain


def test_openssl_opens_what_seal_made_and_unseal_opens_what_openssl_made(tmp_path: Path) -> None:
    openssl = str(require("openssl"))
    (tmp_path / "key").write_text(KEY.text.reveal())
    common = ["enc", "-aes-256-cbc", "-pbkdf2", "-md", "sha256", "-iter", "10000", "-pass", f"file:{tmp_path / 'key'}"]
    for plain in (b"", b"x" * 15, b"x" * 16, b"x" * 4097):
        opened = subprocess.run([openssl, *common, "-d"], input=seal(KEY, plain), capture_output=True, check=True)
        assert opened.stdout == plain
        sealed = subprocess.run([openssl, *common, "-e"], input=plain, capture_output=True, check=True)
        assert unseal(KEY, sealed.stdout, what="x") == plain


def test_unsealing_with_another_key_says_so() -> None:
    # One padding in 256 looks right by chance; what then comes out is no zstd frame, which the reader notices.
    refused: list[WrongKeyError] = []
    for _ in range(20):
        try:
            unseal(OTHER_KEY, seal(KEY, b"x" * 100), what="base.tar.index.enc")
        except WrongKeyError as wrong:
            refused.append(wrong)
    assert len(refused) >= 15
    assert all("base.tar.index.enc" in wrong.message for wrong in refused)


@given(body=st.binary(max_size=300))
def test_what_was_authenticated_opens(body: bytes) -> None:
    assert (
        open_authenticated(KEY, "manifest", WHERE, authenticate(KEY, "manifest", WHERE, body + b"\n")) == body + b"\n"
    )


def test_the_mac_is_the_documented_one() -> None:
    last = json.loads(authenticate(KEY, "manifest", WHERE, BODY)[len(BODY) :])["authentication"]
    message = b"recoup manifest v1\n" + WHERE.encode() + b"\n" + BODY
    mac = hmac.new(KEY.authentication_key, message, hashlib.sha256).hexdigest()
    assert last == {"algorithm": "HMAC-SHA256", "key": KEY.id, "mac": mac}


def test_a_text_is_bound_to_its_purpose_and_to_its_place() -> None:
    data = authenticate(KEY, "manifest", WHERE, BODY)
    for purpose, where in (("repository", WHERE), ("manifest", "manifests/another.json")):
        with pytest.raises(DamageError, match="does not match"):
            open_authenticated(KEY, purpose, where, data)


def test_every_flipped_bit_of_an_authenticated_text_is_damage() -> None:
    data = authenticate(KEY, "manifest", WHERE, BODY)
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(DamageError):
                open_authenticated(KEY, "manifest", WHERE, bytes(changed))


def test_every_truncation_and_every_extension_is_damage() -> None:
    data = authenticate(KEY, "manifest", WHERE, BODY)
    for length in range(len(data)):
        with pytest.raises(DamageError):
            open_authenticated(KEY, "manifest", WHERE, data[:length])
    for more in (b"\n", b" ", b"{}\n", data):
        with pytest.raises(DamageError):
            open_authenticated(KEY, "manifest", WHERE, data + more)


def test_another_key_is_named_and_not_called_damage() -> None:
    data = authenticate(OTHER_KEY, "manifest", WHERE, BODY)
    with pytest.raises(WrongKeyError, match=OTHER_KEY.id[:16]):
        open_authenticated(KEY, "manifest", WHERE, data)
    assert key_id_of(data) == OTHER_KEY.id
    assert key_id_of(BODY) is None


def test_an_unknown_algorithm_is_refused_by_name() -> None:
    line = {"authentication": {"algorithm": "Ed25519", "key": KEY.id, "mac": "0" * 64}}
    with pytest.raises(UnknownFormatError, match="Ed25519"):
        open_authenticated(KEY, "manifest", WHERE, BODY + json.dumps(line).encode() + b"\n")


@settings(max_examples=300)
@given(data=st.binary(max_size=600))
def test_hostile_bytes_are_refused_with_a_clear_error(data: bytes) -> None:
    with pytest.raises(RecoupError):
        open_authenticated(KEY, "manifest", WHERE, data)
