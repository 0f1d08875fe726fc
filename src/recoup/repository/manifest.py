"""The manifest: the authenticated description of one artefact. An artefact exists exactly when its manifest does.

The file is the body (JSON) and one last line that authenticates it (``seal.py``). Nothing of the body is looked at
before it is authenticated, and the object key it is stored under is part of what is authenticated, so a manifest
cannot be passed off as another one's. The fields are specified in ``docs/repository-format.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from recoup.engines.engine import Content
from recoup.kernel import clock, ids
from recoup.kernel.errors import DamageError, UnknownFormatError
from recoup.repository import layout
from recoup.repository.seal import Key, authenticate, open_authenticated
from recoup.storage.object_store import check_key

VERSION: Final = 1
PURPOSE: Final = "manifest"
#: A manifest above this size is refused before it is read: nothing that Recoup writes comes near it.
LIMIT_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReference:
    """Where the index of an object is, and the digest it must have."""

    name: str
    key: str
    stored_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One stream of an artefact, as it is stored."""

    stream: str  #: what the engine called it: ``base.tar``
    name: str  #: ``base.tar.zst.enc``
    key: str  #: the object key in the repository
    stored_bytes: int
    sha256: str  #: of the stored bytes, lower-case hexadecimal
    plain_bytes: int
    content: Content
    compression: str  #: ``zstd`` or ``gzip``
    frame_bytes: int
    index: IndexReference


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One artefact. Times are aware; ``facts`` and ``fingerprint`` belong to the engine."""

    id: str
    system: str
    service: str
    engine: str
    kind: str
    label: str | None
    begun: datetime
    ended: datetime
    tool: Mapping[str, str]
    key_id: str
    iterations: int
    objects: tuple[StoredObject, ...]
    facts: Mapping[str, Any]
    fingerprint: Mapping[str, Any] | None
    left_out: tuple[tuple[str, str], ...]
    depends_on: tuple[str, ...] = ()

    @property
    def stored_bytes(self) -> int:
        """All that the artefact occupies in one repository, its indexes included, its manifest not."""
        return sum(stored.stored_bytes + stored.index.stored_bytes for stored in self.objects)

    @property
    def plain_bytes(self) -> int:
        """What was read from the source."""
        return sum(stored.plain_bytes for stored in self.objects)

    def object_of(self, stream: str) -> StoredObject:
        """The stored object of a stream. Raise ``DamageError`` when the manifest lists none."""
        for stored in self.objects:
            if stored.stream == stream:
                return stored
        raise DamageError(f"artefact {self.id} has no stream {stream!r}")


def to_body(manifest: Manifest) -> dict[str, Any]:
    """The manifest as the JSON object that is stored."""
    return {
        "recoup_manifest": VERSION,
        "id": manifest.id,
        "system": manifest.system,
        "service": manifest.service,
        "engine": manifest.engine,
        "kind": manifest.kind,
        "label": manifest.label,
        "begun": clock.to_text(manifest.begun),
        "ended": clock.to_text(manifest.ended),
        "tool": dict(manifest.tool),
        "key": {
            "mode": "direct",
            "id": manifest.key_id,
            "cipher": "aes-256-cbc",
            "kdf": "pbkdf2-hmac-sha256",
            "iterations": manifest.iterations,
        },
        "objects": [
            {
                "stream": stored.stream,
                "name": stored.name,
                "key": stored.key,
                "stored_bytes": stored.stored_bytes,
                "sha256": stored.sha256,
                "plain_bytes": stored.plain_bytes,
                "content": stored.content.value,
                "compression": stored.compression,
                "frame_bytes": stored.frame_bytes,
                "index": {
                    "name": stored.index.name,
                    "key": stored.index.key,
                    "stored_bytes": stored.index.stored_bytes,
                    "sha256": stored.index.sha256,
                },
            }
            for stored in manifest.objects
        ],
        "depends_on": list(manifest.depends_on),
        "facts": dict(manifest.facts),
        "fingerprint": None if manifest.fingerprint is None else dict(manifest.fingerprint),
        "left_out": [list(pair) for pair in manifest.left_out],
    }


def serialise(manifest: Manifest, key: Key) -> bytes:
    """The bytes to store under ``layout.manifest_key(manifest.id)``."""
    body = json.dumps(to_body(manifest), indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return authenticate(key, PURPOSE, layout.manifest_key(manifest.id), body.encode() + b"\n")


def parse(data: bytes, key: Key, artefact_id: str) -> Manifest:
    """Given the bytes stored for ``artefact_id``, authenticate and return the manifest.

    Raise ``WrongKeyError`` when another key sealed it, ``DamageError`` when the bytes were changed, swapped or cut, and
    ``UnknownFormatError`` when it was written by a Recoup that knows more than this one.
    """
    where = layout.manifest_key(artefact_id)
    body = open_authenticated(key, PURPOSE, where, data)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as wrong:
        raise DamageError(f"{where} is authentic but not JSON") from wrong
    version = document.get("recoup_manifest") if isinstance(document, dict) else None
    if version != VERSION:
        raise UnknownFormatError(
            f"{where} has manifest version {version!r}; this Recoup knows version {VERSION}",
            hint="Use the Recoup that wrote it, or a newer one; `restore.sh` in the repository needs none.",
        )
    key_part = document.get("key")
    mode = key_part.get("mode") if isinstance(key_part, dict) else None
    if mode != "direct":
        raise UnknownFormatError(
            f"{where} is sealed with key mode {mode!r}; this Recoup knows only 'direct'",
            hint="Use a newer Recoup.",
        )
    try:
        manifest = _from_body(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as wrong:
        raise DamageError(f"{where} is authentic but lacks what a version {VERSION} manifest has: {wrong!r}") from wrong
    if manifest.id != artefact_id:
        raise DamageError(f"{where} describes artefact {manifest.id}, not {artefact_id}")
    return manifest


def _from_body(body: Mapping[str, Any]) -> Manifest:
    identifier = body["id"]
    if not ids.is_id(identifier):
        raise ValueError(f"not an artefact id: {identifier!r}")
    return Manifest(
        id=identifier,
        system=str(body["system"]),
        service=str(body["service"]),
        engine=str(body["engine"]),
        kind=str(body["kind"]),
        label=None if body["label"] is None else str(body["label"]),
        begun=clock.from_text(body["begun"]),
        ended=clock.from_text(body["ended"]),
        tool=dict(body["tool"]),
        key_id=str(body["key"]["id"]),
        iterations=int(body["key"]["iterations"]),
        objects=tuple(_object_from(one) for one in body["objects"]),
        facts=dict(body["facts"]),
        fingerprint=None if body["fingerprint"] is None else dict(body["fingerprint"]),
        left_out=tuple((str(what), str(why)) for what, why in body["left_out"]),
        depends_on=tuple(str(one) for one in body.get("depends_on", ())),
    )


def _object_from(one: Mapping[str, Any]) -> StoredObject:
    index = one["index"]
    return StoredObject(
        stream=str(one["stream"]),
        name=str(one["name"]),
        key=check_key(one["key"]),
        stored_bytes=int(one["stored_bytes"]),
        sha256=str(one["sha256"]),
        plain_bytes=int(one["plain_bytes"]),
        content=Content(one["content"]),
        compression=str(one["compression"]),
        frame_bytes=int(one["frame_bytes"]),
        index=IndexReference(
            name=str(index["name"]),
            key=check_key(index["key"]),
            stored_bytes=int(index["stored_bytes"]),
            sha256=str(index["sha256"]),
        ),
    )
