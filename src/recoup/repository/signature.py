"""Signatures for those who have no key: whoever has the public key can check what the repository's key signed.

The private key is never stored: it follows from the repository's key, by HKDF-SHA256 (RFC 5869) without salt, from the
key that makes the MACs and a fixed label. Signatures are Ed25519 (RFC 8032). A document travels in a DSSE envelope
(https://github.com/secure-systems-lab/dsse, protocol 1.0.2 and envelope 1.0.0), a file has its signature beside it.
Stock ``openssl pkeyutl -verify -rawin`` checks both; ``docs/repository-format.md`` says how.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from recoup.kernel.errors import DamageError, UsageError
from recoup.repository.seal import Key

ALGORITHM: Final = "Ed25519"
_LABEL: Final = b"recoup-signing-key-v1"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key, of 32 bytes. ``str`` is its fingerprint: the sha256 of its DER form (SubjectPublicKeyInfo)."""

    raw: bytes

    @classmethod
    def from_pem(cls, text: bytes) -> Self:
        """Raise ``UsageError`` when it is no Ed25519 public key in PEM."""
        try:
            loaded = load_pem_public_key(text)
        except (ValueError, UnsupportedAlgorithm) as wrong:
            raise UsageError("this is no public key in PEM", hint="`recoup key show-public` prints one.") from wrong
        if not isinstance(loaded, Ed25519PublicKey):
            raise UsageError(
                "this is no Ed25519 public key",
                hint="`recoup key show-public` prints the one that drills are signed by.",
            )
        return cls(loaded.public_bytes_raw())

    @property
    def pem(self) -> str:
        """As ``openssl`` reads it."""
        return self._loaded().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def __str__(self) -> str:
        der = self._loaded().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether its owner signed ``data``."""
        try:
            self._loaded().verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def _loaded(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)


def _private(key: Key) -> Ed25519PrivateKey:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_LABEL).derive(key.authentication_key)
    return Ed25519PrivateKey.from_private_bytes(derived)


def public_key(key: Key) -> PublicKey:
    """What a stranger needs to check what ``key`` signed; nothing about ``key`` follows from it."""
    return PublicKey(_private(key).public_key().public_bytes_raw())


def sign(key: Key, data: bytes) -> bytes:
    """The signature of a file, 64 bytes: ``openssl pkeyutl -verify -rawin`` checks it as it stands."""
    return _private(key).sign(data)


def canonical(document: Mapping[str, Any]) -> bytes:
    """The bytes that are signed of a document: JSON in ASCII, names sorted, without spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _encoded(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding (PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_document(key: Key, payload_type: str, document: Mapping[str, Any]) -> bytes:
    """The signature of a document, bound to what kind of document it is."""
    return sign(key, _encoded(payload_type, canonical(document)))


def envelope(public: PublicKey, payload_type: str, document: Mapping[str, Any], signature: bytes) -> dict[str, Any]:
    """A document and its signature as one DSSE envelope."""
    return {
        "payloadType": payload_type,
        "payload": base64.b64encode(canonical(document)).decode("ascii"),
        "signatures": [{"keyid": str(public), "sig": base64.b64encode(signature).decode("ascii")}],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A DSSE envelope as it was read. Nothing in it is believed before ``is_signed_by``."""

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...]

    def is_signed_by(self, public: PublicKey) -> bool:
        """Whether one of the signatures is that key's."""
        data = _encoded(self.payload_type, self.payload)
        return any(public.verifies(one, data) for one in self.signatures)


def read_envelope(said: object) -> Envelope:
    """Given parsed JSON, return the envelope. Raise ``DamageError`` when it is none."""
    try:
        fields = cast(dict[str, Any], said)
        return Envelope(
            payload_type=str(fields["payloadType"]),
            payload=base64.b64decode(fields["payload"], validate=True),
            signatures=tuple(base64.b64decode(one["sig"], validate=True) for one in fields["signatures"]),
        )
    except (KeyError, TypeError, ValueError) as wrong:  # what is not base64 is a ValueError, too
        raise DamageError("the signed part is no DSSE envelope: it was cut or changed") from wrong
