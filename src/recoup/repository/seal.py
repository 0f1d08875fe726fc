"""The key, and what is done with it: ciphers in the form of ``openssl enc``, and authenticated texts.

Sources: OpenSSL's ``enc`` (``Salted__``, eight bytes of salt, then AES-256-CBC with PKCS#7 padding; key and first IV
are the 48 bytes of PBKDF2-HMAC-SHA256), RFC 8018 (PBKDF2), RFC 2104 (HMAC). The whole format is described in
``docs/repository-format.md``.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from recoup.kernel.errors import DamageError, UnknownFormatError, WrongKeyError
from recoup.kernel.secret import Secret

Buffer = bytes | bytearray | memoryview

BLOCK: Final = 16  #: bytes of one AES block
MAGIC: Final = b"Salted__"
SALT_BYTES: Final = 8
HEADER_BYTES: Final = len(MAGIC) + SALT_BYTES
RANDOM_KEY_ITERATIONS: Final = 10_000
PASSPHRASE_ITERATIONS: Final = 600_000

# Eight bytes, as ``openssl enc -S`` demands. Its random salts collide with this one once in 2^64 objects, and
# ``new_salt`` excludes even that, so no object is ever encrypted with the authentication key.
_AUTHENTICATION_SALT: Final = b"recoupM1"
_ALGORITHM: Final = "HMAC-SHA256"
_RANDOM_KEY = re.compile(r"[0-9a-f]{64}")
_PURPOSE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_LAST_LINE = re.compile(
    rb'\{"authentication": \{"algorithm": "([!#-\[\]-~]{1,40})", "key": "([0-9a-f]{32})", "mac": "([0-9a-f]{64})"\}\}\n'
)
_LAST_LINE_LIMIT: Final = 512
# ``openssl -pass file:`` reads at most 1,023 bytes of the line and silently ignores the rest.
_TEXT_LIMIT_BYTES: Final = 1000


@dataclass(frozen=True, slots=True)
class Key:
    """A repository's key: the text that ``openssl -pass file:`` reads, and everything derived from it.

    ``id`` names the key in public (32 hexadecimal characters, nothing about the key follows from it);
    ``iterations`` is PBKDF2's count; ``authentication_key`` (32 bytes) makes the MACs. Make one with ``from_text`` or
    ``generate``. Neither ``repr`` nor ``str`` shows a secret.
    """

    text: Secret = field(repr=False)
    id: str
    iterations: int
    authentication_key: bytes = field(repr=False)
    is_random: bool

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Given the text of a key file, of which only the first line counts, return its key.

        64 lowercase hexadecimal characters are a random key, anything else is a passphrase (and 60 times slower to
        derive from). Raise ``WrongKeyError`` for a text that ``openssl`` would not read as it stands.
        """
        line = text.split("\n", 1)[0]
        try:
            encoded = line.encode()
        except UnicodeEncodeError as bad:
            raise WrongKeyError("the key is not UTF-8 text", hint="Use the key file exactly as it was made.") from bad
        if not encoded:
            raise WrongKeyError("the key is empty", hint="Make a key with: recoup key generate")
        if any(byte < 0x20 or byte == 0x7F for byte in encoded):
            raise WrongKeyError(
                "the key holds a control character", hint="Save the key file as one line ended by LF, not CR LF."
            )
        if len(encoded) > _TEXT_LIMIT_BYTES:
            raise WrongKeyError(
                f"the key is longer than {_TEXT_LIMIT_BYTES} bytes", hint="Is this the key file, and not another one?"
            )
        is_random = _RANDOM_KEY.fullmatch(line) is not None
        iterations = RANDOM_KEY_ITERATIONS if is_random else PASSPHRASE_ITERATIONS
        fixed = hashlib.pbkdf2_hmac("sha256", encoded, _AUTHENTICATION_SALT, iterations, 48)
        return cls(
            text=Secret(line),
            id=fixed[32:].hex(),
            iterations=iterations,
            authentication_key=fixed[:32],
            is_random=is_random,
        )

    @classmethod
    def generate(cls) -> Self:
        """A new random key of 256 bits."""
        return cls.from_text(secrets.token_hex(32))

    def derive(self, salt: bytes) -> tuple[bytes, bytes]:
        """Given an object's salt, return its cipher key (32 bytes) and first IV (16 bytes)."""
        if len(salt) != SALT_BYTES:
            raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
        return _derived(self.text.reveal().encode(), salt, self.iterations)


# An object is opened several times in a row: read back after it was written, its index before its data, its data in
# pieces. What is kept lies in memory beside the key that it comes from.
@functools.lru_cache(maxsize=128)
def _derived(text: bytes, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    derived = hashlib.pbkdf2_hmac("sha256", text, salt, iterations, 48)
    return derived[:32], derived[32:]


def new_salt() -> bytes:
    """A fresh salt for one object."""
    while (salt := secrets.token_bytes(SALT_BYTES)) == _AUTHENTICATION_SALT:
        pass
    return salt


def encryptor(cipher_key: bytes, iv: bytes) -> CipherContext:
    """Begin AES-256-CBC encryption. The caller adds the padding."""
    return Cipher(AES256(cipher_key), CBC(iv)).encryptor()


def decrypt_into(cipher_key: bytes, iv: bytes, ciphertext: Buffer, plain: bytearray) -> None:
    """Decrypt whole blocks into ``plain``, which is at least 15 bytes longer than ``ciphertext``. No padding is cut."""
    Cipher(AES256(cipher_key), CBC(iv)).decryptor().update_into(ciphertext, plain)


def seal(key: Key, plain: bytes) -> bytes:
    """Encrypt a small object as a whole, as ``openssl enc -e`` does."""
    salt = new_salt()
    context = encryptor(*key.derive(salt))
    padding = BLOCK - len(plain) % BLOCK
    return MAGIC + salt + context.update(plain) + context.update(bytes([padding]) * padding)


def unseal(key: Key, sealed: bytes, *, what: str) -> bytes:
    """Decrypt what ``seal`` made. Call it only with bytes whose digest has matched already.

    Raise ``DamageError`` naming ``what`` when it has not the form, ``WrongKeyError`` when the padding is wrong.
    """
    if len(sealed) < HEADER_BYTES + BLOCK or len(sealed) % BLOCK or not sealed.startswith(MAGIC):
        raise DamageError(f"{what} is not in the form of openssl enc ({len(sealed)} bytes)")
    cipher_key, iv = key.derive(sealed[len(MAGIC) : HEADER_BYTES])
    plain = Cipher(AES256(cipher_key), CBC(iv)).decryptor().update(memoryview(sealed)[HEADER_BYTES:])
    padding = plain[-1]
    if not 1 <= padding <= BLOCK or plain[-padding:] != bytes([padding]) * padding:
        raise wrong_key(what, key)
    return plain[:-padding]


def wrong_key(what: str, key: Key) -> WrongKeyError:
    """The error for authentic bytes that this key does not open."""
    return WrongKeyError(
        f"{what} cannot be decrypted with key {key.id[:16]}",
        hint="It was sealed with another key. Give the key file that belongs to this repository.",
    )


def authenticate(key: Key, purpose: str, object_key: str, body: bytes) -> bytes:
    """Given a text that ends in a newline, return it with one more line, which authenticates it.

    The MAC binds the body to its ``purpose`` (``manifest``) and to the key of the object that will hold it, so that
    no authentic text passes for another one.
    """
    if not body.endswith(b"\n"):
        raise ValueError("an authenticated text ends in a newline")
    mac = _mac(key, purpose, object_key, body).hex()
    line = f'{{"authentication": {{"algorithm": "{_ALGORITHM}", "key": "{key.id}", "mac": "{mac}"}}}}\n'
    return body + line.encode()


def open_authenticated(key: Key, purpose: str, object_key: str, data: bytes) -> bytes:
    """Given what ``authenticate`` returned, from wherever it was kept, return the body.

    Nothing of the body is looked at before its MAC matched. Raise ``WrongKeyError`` when another key made the last
    line, ``UnknownFormatError`` for an unknown algorithm, ``DamageError`` for everything else that is not authentic.
    """
    cut = data.rfind(b"\n", max(0, len(data) - _LAST_LINE_LIMIT), max(0, len(data) - 1)) + 1
    line = _LAST_LINE.fullmatch(data[cut:]) if cut else None
    if line is None:
        raise DamageError(
            f"{object_key} does not end in an authentication line: truncated, changed, or not a {purpose}"
        )
    algorithm, key_id, mac = (group.decode("ascii") for group in line.groups())
    body = data[:cut]
    authentic = hmac.compare_digest(_mac(key, purpose, object_key, body), bytes.fromhex(mac))
    if authentic and algorithm == _ALGORITHM and key_id == key.id:
        return body
    if authentic:
        # The body is right and the line's other words are not: that is damage, and not another key or version.
        raise DamageError(f"the authentication line of {object_key} was changed")
    if algorithm != _ALGORITHM:
        raise UnknownFormatError(
            f"{object_key} is authenticated by {algorithm}, which this version of Recoup does not know",
            hint="Use the version of Recoup that wrote it, or a newer one.",
        )
    if key_id != key.id:
        raise WrongKeyError(
            f"{object_key} belongs to key {key_id[:16]}, and the key given is {key.id[:16]}",
            hint="Give the key file that belongs to this repository.",
        )
    raise DamageError(f"{object_key} was changed: its MAC does not match")


def key_id_of(data: bytes) -> str | None:
    """The id of the key that an authenticated text claims, unproven; None when it has no such line."""
    cut = data.rfind(b"\n", max(0, len(data) - _LAST_LINE_LIMIT), max(0, len(data) - 1)) + 1
    line = _LAST_LINE.fullmatch(data[cut:]) if cut else None
    return line[2].decode("ascii") if line else None


def mac_of(key: Key, purpose: str, object_key: str, body: Buffer) -> bytes:
    """The MAC (32 bytes) that binds ``body`` to its purpose and place: what ``authenticate`` writes in its last line.

    For objects that carry it elsewhere. Raise ``ValueError`` for a purpose or a place that cannot be bound.
    """
    return _mac(key, purpose, object_key, body)


def _mac(key: Key, purpose: str, object_key: str, body: Buffer) -> bytes:
    if not _PURPOSE.fullmatch(purpose) or "\n" in object_key:
        raise ValueError(f"cannot authenticate {purpose!r} at {object_key!r}")
    digest = hmac.new(key.authentication_key, f"recoup {purpose} v1\n{object_key}\n".encode(), hashlib.sha256)
    digest.update(body)
    return digest.digest()
