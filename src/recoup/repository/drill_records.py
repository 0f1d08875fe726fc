"""Records about drills in a repository: small authenticated texts that are written once and never changed.

This knows how they are kept, not what they say. Each is authenticated like a manifest, and bound to the key of its
object. All repositories of a plan have one key, so the same bytes are right in each of them. From version 2 on each is
signed as well, for those who have no key.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal

from recoup.kernel.errors import (
    DamageError,
    MissingObjectError,
    RecoupError,
    RefusedError,
    StorageError,
    UnknownFormatError,
)
from recoup.kernel.finding import Verdict
from recoup.repository import layout
from recoup.repository.repository import Repository
from recoup.repository.seal import Key, authenticate, open_authenticated
from recoup.repository.signature import ALGORITHM, PublicKey, envelope, public_key, read_envelope, sign_document
from recoup.storage.object_store import ObjectExistsError

VERSION: Final = 2
_UNSIGNED: Final = 1
#: The most that one record, or the file that proves a closing, may have.
LIMIT_BYTES: Final = 16 << 20
_AT_ONCE: Final = 8

#: ``records``: one drill each. ``closings``: the end of one issue each.
Family = Literal["records", "closings"]
_PURPOSES: Final = {"records": "drill", "closings": "drill-closing"}
_FIELDS: Final = {"records": "recoup_drill", "closings": "recoup_drill_closing"}
#: What the signatures are bound to.
PAYLOADS: Final = {
    "records": "application/vnd.recoup.drill+json",
    "closings": "application/vnd.recoup.drill-closing+json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """An authentic record. ``data`` are the bytes as stored, ``sha256`` their digest.

    ``signed`` is the record with its signature as a DSSE envelope; None for one from before there were signatures.
    """

    id: str
    body: Mapping[str, Any]
    data: bytes
    signed: Mapping[str, Any] | None = None

    @property
    def sha256(self) -> str:
        """Of the bytes as stored, lower-case hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbelievable:
    """An object that is there and cannot be believed, or not be understood (then ``verdict`` is unknown)."""

    key: str
    what: str
    verdict: Verdict = Verdict.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecords:
    """What a repository holds of a family, by id, the oldest first. ``ids`` are all of them, also those not read."""

    found: Mapping[str, StoredRecord]
    problems: tuple[Unbelievable, ...]
    ids: tuple[str, ...]


def make_record(key: Key, family: Family, identifier: str, body: Mapping[str, Any]) -> StoredRecord:
    """The record to store. Raise ``RefusedError`` when it is larger than one may be."""
    where = layout.drill_record_key(family, identifier)
    document: dict[str, Any] = {_FIELDS[family]: VERSION, "id": identifier, **body}
    value = sign_document(key, PAYLOADS[family], document)
    signed = envelope(public_key(key), PAYLOADS[family], document, value)
    document["signature"] = {
        "algorithm": ALGORITHM,
        "public_key": base64.b64encode(public_key(key).raw).decode("ascii"),
        "value": base64.b64encode(value).decode("ascii"),
    }
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
    data = authenticate(key, _PURPOSES[family], where, text.encode() + b"\n")
    if len(data) > LIMIT_BYTES:
        raise RefusedError(
            f"the record {identifier} would have {len(data)} bytes; {LIMIT_BYTES} is the most",
            hint="Something in it repeats without end; look at the checks and flows of the drill.",
        )
    return StoredRecord(id=identifier, body=document, data=data, signed=signed)


def put_record(repository: Repository, family: Family, record: StoredRecord) -> None:
    """Store a record and read it back. The same again is fine.

    Raise ``RefusedError`` when another one is under its id already, ``DamageError`` when it does not read back,
    ``StorageError``.
    """
    where = layout.drill_record_key(family, record.id)
    fresh = True
    try:
        repository.store.put(where, record.data, if_absent=True)
    except ObjectExistsError:  # compared below: it may be ours, whose answer was lost
        fresh = False
    if repository.store.get(where, limit_bytes=LIMIT_BYTES) == record.data:
        return
    if fresh:
        raise DamageError(
            f"{where} in {repository} does not read back as it was written",
            hint="The place that keeps it changes or loses bytes; check its disk or its provider before trusting it.",
        )
    raise RefusedError(
        f"{repository} has another record under {where}, and a record is never changed",
        hint="Look at it: `recoup drill --list` names records that cannot be believed.",
    )


def read_records(repository: Repository, family: Family, *, newest: int | None = None) -> StoredRecords:
    """Every record of a family, or the ``newest`` by their ids.

    Raise ``StorageError`` when the repository cannot be asked. What is not authentic is in ``problems``, by its key.
    """
    keys = [info.key for info in repository.store.list(layout.drill_records(family))]
    ids = [(key, layout.drill_record_id_of(family, key)) for key in keys]
    problems = [Unbelievable(key=key, what="not the key of a record") for key, one in ids if one is None]
    good = sorted(one for _, one in ids if one is not None)
    wanted = good if newest is None else good[len(good) - min(newest, len(good)) :]
    found: dict[str, StoredRecord] = {}
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for one in pool.map(lambda identifier: _read(repository, family, identifier), wanted):
            if isinstance(one, StoredRecord):
                found[one.id] = one
            elif one is not None:
                problems.append(one)
    return StoredRecords(found=found, problems=tuple(problems), ids=tuple(good))


def _read(repository: Repository, family: Family, identifier: str) -> StoredRecord | Unbelievable | None:
    where = layout.drill_record_key(family, identifier)
    try:
        data = repository.store.get(where, limit_bytes=LIMIT_BYTES)
        return parse_record(repository.key, family, identifier, data)
    except MissingObjectError:
        return None  # removed between the listing and the reading
    except UnknownFormatError as newer:
        return Unbelievable(key=where, what=newer.message, verdict=Verdict.UNKNOWN)
    except RecoupError as wrong:
        if isinstance(wrong, StorageError):
            raise
        return Unbelievable(key=where, what=wrong.message)


def parse_record(key: Key, family: Family, identifier: str, data: bytes) -> StoredRecord:
    """Authenticate a record. Raise ``DamageError``, ``WrongKeyError``, ``UnknownFormatError``."""
    where = layout.drill_record_key(family, identifier)
    text = open_authenticated(key, _PURPOSES[family], where, data)
    try:
        body = json.loads(text)
        version, named = body[_FIELDS[family]], body["id"]
    except (ValueError, KeyError, TypeError, RecursionError) as wrong:
        raise DamageError(f"{where} is authentic but is not what Recoup writes") from wrong
    if version not in (VERSION, _UNSIGNED):
        raise UnknownFormatError(
            f"{where} has version {version!r}; this Recoup knows version {VERSION}",
            hint="Use the Recoup that wrote it, or a newer one.",
        )
    if named != identifier:
        raise DamageError(f"{where} describes {named!r}")
    signed = None if version == _UNSIGNED else _signed(public_key(key), family, where, body)
    return StoredRecord(id=identifier, body=body, data=data, signed=signed)


def _signed(public: PublicKey, family: Family, where: str, body: Mapping[str, Any]) -> dict[str, Any]:
    document = {name: value for name, value in body.items() if name != "signature"}
    try:
        value = base64.b64decode(body["signature"]["value"], validate=True)
        made = envelope(public, PAYLOADS[family], document, value)
    except (KeyError, TypeError, ValueError) as wrong:
        raise DamageError(f"{where} is authentic but is not signed as Recoup signs") from wrong
    if not read_envelope(made).is_signed_by(public):
        raise DamageError(f"{where} is authentic, and its signature is not its key's")
    return made


def put_proof(repository: Repository, identifier: str, sealed: bytes) -> None:
    """Store the sealed file of a closing and read it back. Raise ``DamageError``, ``StorageError``."""
    where = layout.drill_proof_key(identifier)
    with contextlib.suppress(ObjectExistsError):
        repository.store.put(where, sealed, if_absent=True)
    if repository.store.get(where, limit_bytes=2 * LIMIT_BYTES) != sealed:
        raise DamageError(f"{where} in {repository} does not read back as it was written")


def read_proof(repository: Repository, identifier: str, stored_sha256: str) -> bytes:
    """The sealed file of a closing. Raise ``DamageError`` when it is not the one that the closing names."""
    where = layout.drill_proof_key(identifier)
    sealed = repository.store.get(where, limit_bytes=2 * LIMIT_BYTES)
    if hashlib.sha256(sealed).hexdigest() != stored_sha256:
        raise DamageError(f"{where} in {repository} is not the file that its closing names")
    return sealed


def missing_in(records: StoredRecords, of_others: Mapping[str, StoredRecord]) -> Iterator[StoredRecord]:
    """The records that others hold and this one does not."""
    have = {*records.ids}
    yield from (one for name, one in of_others.items() if name not in have)
