"""The book of drills: what all repositories together hold of them, and writing into it.

Each record goes into every repository, is read back there, and is never changed. A repository that was away gets what
it lacks with the next record. One that holds a damaged or forged record is named, and the record is taken from another
that has it right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from recoup.drill.codec import decode, encode
from recoup.drill.issues import Closing, ClosingProof, TrackedIssue, track
from recoup.drill.model import DrillRecord
from recoup.kernel.errors import DamageError, MissingObjectError, RecoupError, UsageError
from recoup.kernel.finding import Verdict
from recoup.repository.drill_records import (
    Family,
    StoredRecord,
    StoredRecords,
    make_record,
    missing_in,
    put_proof,
    put_record,
    read_proof,
    read_records,
)
from recoup.repository.layout import drill_record_key
from recoup.repository.repository import Repository
from recoup.repository.seal import seal, unseal

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An object about drills that cannot be believed (failed), or that this Recoup does not know (unknown)."""

    repository: str
    key: str
    what: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Every drill, the newest first. ``places`` says by id which repositories hold it, ``digests`` its sha256.

    ``signed`` has the DSSE envelope of each that is signed. ``failed`` are the repositories that could not be asked.
    """

    records: tuple[DrillRecord, ...]
    closings: tuple[Closing, ...]
    places: Mapping[str, tuple[str, ...]]
    digests: Mapping[str, str]
    signed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    failed: Mapping[str, RecoupError]

    @property
    def issues(self) -> tuple[TrackedIssue, ...]:
        """Every issue of every drill, the oldest first."""
        return track(self.records, self.closings)

    @property
    def verdict(self) -> Verdict:
        """Whether the book can be believed as it is: failed for forged records, unknown for silent repositories."""
        if any(one.verdict is Verdict.FAILED for one in self.problems):
            return Verdict.FAILED
        return Verdict.UNKNOWN if self.problems or self.failed else Verdict.OK

    def find(self, reference: str) -> DrillRecord:
        """The drill meant by ``latest``, an id, or the beginning of one. Raise ``UsageError``."""
        if not self.records:
            raise UsageError("there is no record of a drill", hint="`recoup drill` holds one.")
        if reference == "latest":
            return self.records[0]
        found = [one for one in self.records if one.id.startswith(reference)]
        exact = [one for one in found if one.id == reference]
        if len(exact or found) == 1:
            return (exact or found)[0]
        what = "no drill" if not found else f"{len(found)} drills"
        raise UsageError(f"{what} with the id {reference!r}", hint="`recoup drill --list` shows them.")

    def find_issue(self, identifier: str) -> TrackedIssue:
        """An issue by its id. Raise ``UsageError``."""
        for one in self.issues:
            if one.issue.id == identifier:
                return one
        raise UsageError(f"there is no issue {identifier!r}", hint="`recoup drill --issues` lists those that are open.")


def read_book(
    repositories: Sequence[Repository],
    *,
    system: str | None = None,
    failed: Mapping[str, RecoupError] | None = None,
    newest: int | None = None,
) -> Book:
    """Read the drills of ``system`` (of all, when None) from every repository, or only the ``newest`` of each.

    With ``newest`` no closings are read. Never raises for a repository that cannot be asked: it is in ``failed``.
    """
    silent = dict(failed or {})
    held: dict[str, StoredRecords] = {}
    ended: dict[str, StoredRecords] = {}
    for repository in repositories:
        try:
            held[repository.name] = read_records(repository, "records", newest=newest)
            if newest is None:
                ended[repository.name] = read_records(repository, "closings")
        except RecoupError as failure:
            silent[repository.name] = failure
    problems: list[Problem] = []
    drills, places = _merged(held, problems, "records")
    closings, _ = _merged(ended, problems, "closings")
    records = _decoded(drills, places, problems, "records", lambda body: decode(DrillRecord, body["record"]))
    mine = [one for one in records if system is None or one.system == system]
    return Book(
        records=tuple(sorted(mine, key=lambda one: (one.declared, one.id), reverse=True)),
        closings=tuple(_decoded(closings, {}, problems, "closings", lambda body: decode(Closing, body["closing"]))),
        places={name: tuple(names) for name, names in places.items()},
        digests={name: one.sha256 for name, one in drills.items()},
        signed={name: one.signed for name, one in drills.items() if one.signed is not None},
        problems=tuple(problems),
        failed=silent,
    )


def _merged(
    held: Mapping[str, StoredRecords], problems: list[Problem], family: Family
) -> tuple[dict[str, StoredRecord], dict[str, list[str]]]:
    found: dict[str, StoredRecord] = {}
    places: dict[str, list[str]] = {}
    for name, records in held.items():
        problems += [
            Problem(repository=name, key=one.key, what=one.what, verdict=one.verdict) for one in records.problems
        ]
        for identifier, record in records.found.items():
            first = found.setdefault(identifier, record)
            if first.data != record.data:
                what = f"authentic, and another one than in {places[identifier][0]}"
                key = drill_record_key(family, identifier)
                problems.append(Problem(repository=name, key=key, what=what, verdict=Verdict.FAILED))
            places.setdefault(identifier, []).append(name)
    return found, places


def _decoded(
    found: Mapping[str, StoredRecord],
    places: Mapping[str, Sequence[str]],
    problems: list[Problem],
    family: Family,
    read: Callable[[Mapping[str, object]], T],
) -> list[T]:
    good: list[T] = []
    for identifier, record in found.items():
        try:
            good.append(read(record.body))
        except (KeyError, ValueError) as wrong:
            problems.append(
                Problem(
                    repository=", ".join(places.get(identifier, ())),
                    key=drill_record_key(family, identifier),
                    what=f"authentic, but not what this Recoup writes: {wrong}",
                    verdict=Verdict.UNKNOWN,
                )
            )
    return good


def write_drill(repositories: Sequence[Repository], record: DrillRecord) -> dict[str, RecoupError | None]:
    """Store the record of a drill in every repository; how it went, by repository. None: stored and read back."""
    return _write_everywhere(repositories, "records", record.id, stored_form(record))


def stored_form(record: DrillRecord) -> dict[str, Any]:
    """What is stored and signed of a drill."""
    return {"system": record.system, "verdict": record.verdict.value, "record": encode(record)}


def file_proof(repository: Repository, name: str, content: bytes) -> tuple[ClosingProof, bytes]:
    """A file as the proof of a closing, and what is to be stored of it: encrypted once, for all repositories."""
    sealed = seal(repository.key, content)
    proof = ClosingProof(
        kind="file",
        name=name,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        stored_sha256=hashlib.sha256(sealed).hexdigest(),
    )
    return proof, sealed


def write_closing(
    repositories: Sequence[Repository], closing: Closing, sealed: bytes | None = None
) -> dict[str, RecoupError | None]:
    """Store the closing of an issue, and before it the file that proves it; how it went, by repository."""
    outcome: dict[str, RecoupError | None] = {}
    ready = []
    for repository in repositories:
        try:
            if sealed is not None:
                put_proof(repository, closing.id, sealed)
            ready.append(repository)
        except RecoupError as failure:
            outcome[repository.name] = failure
    return outcome | _write_everywhere(ready, "closings", closing.id, {"closing": encode(closing)})


def proof_file(repositories: Sequence[Repository], closing: Closing) -> bytes:
    """The file that proves a closing, from the first repository that has it right. Raise the last error."""
    sealed, repository = _sealed_proof(repositories, closing)
    return unseal(repository.key, sealed, what=f"the proof of {closing.issue}")


def _sealed_proof(repositories: Sequence[Repository], closing: Closing) -> tuple[bytes, Repository]:
    wrong: RecoupError = DamageError(f"no repository has the file of the closing {closing.id}")
    for repository in repositories:
        try:
            return read_proof(repository, closing.id, closing.proof.stored_sha256), repository
        except RecoupError as failure:
            wrong = failure
    raise wrong


def _write_everywhere(
    repositories: Sequence[Repository], family: Family, identifier: str, body: Mapping[str, object]
) -> dict[str, RecoupError | None]:
    outcome: dict[str, RecoupError | None] = {}
    for repository in repositories:
        try:
            put_record(repository, family, make_record(repository.key, family, identifier, body))
            outcome[repository.name] = None
        except RecoupError as failure:
            outcome[repository.name] = failure
    return outcome


def level(repositories: Sequence[Repository]) -> dict[str, int | RecoupError]:
    """Bring every repository what others hold of drills and it does not; how many records each got, or why not.

    Only what is authentic travels. Call it when something was written, or by ``recoup sync``.
    """
    outcome: dict[str, int | RecoupError] = {one.name: 0 for one in repositories}
    for family in ("records", "closings"):
        held: dict[str, StoredRecords] = {}
        for repository in repositories:
            try:
                held[repository.name] = read_records(repository, family)
            except RecoupError as failure:
                outcome[repository.name] = failure
        every = {name: one for records in held.values() for name, one in records.found.items()}
        for repository in repositories:
            if repository.name in held:
                _bring(repository, family, held[repository.name], every, repositories, outcome)
    return outcome


def _bring(
    repository: Repository,
    family: Family,
    records: StoredRecords,
    every: Mapping[str, StoredRecord],
    others: Sequence[Repository],
    outcome: dict[str, int | RecoupError],
) -> None:
    for record in missing_in(records, every):
        try:
            closing = decode(Closing, record.body["closing"]) if family == "closings" else None
            if closing is not None and closing.proof.kind == "file":
                sealed, _ = _sealed_proof([one for one in others if one is not repository], closing)
                put_proof(repository, closing.id, sealed)
            put_record(repository, family, record)
            before = outcome[repository.name]
            outcome[repository.name] = before + 1 if isinstance(before, int) else before
        except (KeyError, ValueError, MissingObjectError):
            continue  # not of this Recoup; it is named when the book is read
        except RecoupError as failure:
            outcome[repository.name] = failure
            return
