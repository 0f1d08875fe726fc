"""Grades an artefact: *stored* (it is all there), *intact* (every byte is right, the content is what it says)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from recoup.engines.engine import CopyReader
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, MissingObjectError, RecoupError, StorageError, WrongKeyError
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.kernel.limits import LimitReached, Watch
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.landing import read_back
from recoup.repository.layout import manifest_key
from recoup.repository.manifest import Manifest
from recoup.repository.repository import Repository
from recoup.verification.grade import Grade, Rung, reached

_NEW_CHAIN = "Restore from another repository; then take a new base backup, from which a new chain begins."
_REPAIR = "Restore from another repository; then take a new backup."


ContentCheck = Callable[[CopyReader], Sequence[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What verifying one artefact established, grade by grade."""

    artefact_id: str
    asked: Grade
    rungs: tuple[Rung, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that was found, the lowest grade first."""
        return tuple(finding for rung in self.rungs for finding in rung.findings)

    @property
    def reached(self) -> Grade | None:
        """The highest grade that holds, with every grade below it. None when not even the lowest does."""
        return reached(self.rungs)

    @property
    def verdict(self) -> Verdict:
        """Ok only when every finding is."""
        return overall(self.findings)


def verify_artefact(
    manifest: Manifest,
    holders: Sequence[Repository],
    asked: Grade,
    check_content: ContentCheck,
    watch: Watch | None = None,
) -> Verification:
    """Given a manifest and the repositories that hold it, prove it up to ``asked``.

    Grades above *intact* need a sandbox (``live.climb``) and are not looked at here.
    Every repository is checked by itself: a copy that could be restored from one place is still *failed* when
    another place has lost it. ``check_content`` is the engine's own check of what is inside. A grade that a limit of
    ``watch`` does not let come to its end is *unknown*.
    """
    watch = watch or Watch()
    rungs = [make_rung(Grade.STORED, lambda: _stored_everywhere(manifest, holders), watch)]
    if asked.rank >= Grade.INTACT.rank:
        rungs.append(make_rung(Grade.INTACT, lambda: _intact(manifest, holders, check_content), watch))
    return Verification(artefact_id=manifest.id, asked=asked, rungs=tuple(rungs))


def make_rung(grade: Grade, check: Callable[[], Sequence[Finding]], watch: Watch) -> Rung:
    """Make the checks of one grade, within the limits of ``watch``."""
    begun = clock.monotonic()
    reason = watch.reached()
    try:
        if reason is None:
            with watch.interrupting():
                findings = tuple(check())
        else:
            findings = (not_reached(grade, reason),)
    except LimitReached as limit:
        findings = (not_reached(grade, limit.reason),)
    return Rung(grade=grade, findings=findings, seconds=clock.monotonic() - begun)


def not_reached(grade: Grade, reason: str) -> Finding:
    """The finding for a grade whose checks did not come to their end."""
    return Finding(
        check=f"the checks of the grade {grade} were made",
        subject="the copy",
        verdict=Verdict.UNKNOWN,
        detail=f"they were not, or not to their end: {reason}",
        hint="Give it more (verify.budget in the plan, or the options of `recoup verify`), or ask for a lesser grade.",
        not_checked=f"what the grade {grade} proves",
    )


def _stored_everywhere(manifest: Manifest, holders: Sequence[Repository]) -> list[Finding]:
    findings: list[Finding] = []
    for repository in holders:
        findings += check_stored(manifest, repository)
        findings += check_chain(manifest, repository)
    return findings


def _intact(manifest: Manifest, holders: Sequence[Repository], check_content: ContentCheck) -> list[Finding]:
    findings: list[Finding] = []
    sound = [one for one in holders if _report(findings, check_bytes(manifest, one))]
    if sound:
        findings += _inside(ArtefactReader(manifest, sound[:1]), manifest, check_content)
    return findings


def _manifest_stored(manifest: Manifest, repository: Repository) -> Finding:
    check, subject = "the manifest is stored and authentic", f"{repository.name}:{manifest_key(manifest.id)}"
    try:
        same = repository.manifest(manifest.id) == manifest
    except (DamageError, MissingObjectError) as damage:
        return Finding(check=check, subject=subject, verdict=Verdict.FAILED, detail=damage.message, hint=_REPAIR)
    except StorageError as failure:
        return Finding(check=check, subject=subject, verdict=Verdict.UNKNOWN, detail=failure.message, hint=failure.hint)
    if same:
        return Finding(check=check, subject=subject, verdict=Verdict.OK)
    detail = "it is authentic, and another one than in the repository before it"
    return Finding(check=check, subject=subject, verdict=Verdict.FAILED, detail=detail, hint=_REPAIR)


def _report(findings: list[Finding], new: Sequence[Finding]) -> bool:
    findings += new
    return overall(new) is Verdict.OK


def check_stored(manifest: Manifest, repository: Repository) -> list[Finding]:
    """The repository's own manifest is the same, and each object is there with the size that it says."""
    findings = [_manifest_stored(manifest, repository)]
    for stored in manifest.objects:
        for key, size in ((stored.key, stored.stored_bytes), (stored.index.key, stored.index.stored_bytes)):
            findings.append(_one_stored(repository, key, size))
    return findings


def check_chain(manifest: Manifest, repository: Repository) -> list[Finding]:
    """All that the artefact builds on is stored in this repository too: without it, this cannot be restored here."""
    findings = []
    for identifier in manifest.depends_on:
        check, subject = "what it builds on is stored", f"{repository.name}:{manifest_key(identifier)}"
        try:
            faults = [
                one for one in check_stored(repository.manifest(identifier), repository) if one.verdict != Verdict.OK
            ]
        except WrongKeyError:
            raise
        except RecoupError as failure:
            lost = isinstance(failure, DamageError | MissingObjectError)
            verdict = Verdict.FAILED if lost else Verdict.UNKNOWN
            findings.append(
                Finding(check=check, subject=subject, verdict=verdict, detail=failure.message, hint=_NEW_CHAIN)
            )
            continue
        findings += [replace(one, check=check, hint=_NEW_CHAIN) for one in faults]
        if not faults:
            findings.append(
                Finding(
                    check=check, subject=subject, verdict=Verdict.OK, detail=f"{len(manifest.depends_on)} in all",
                    not_checked="its bytes: `recoup verify` with its id does",
                )
            )  # fmt: skip
    return findings


def _one_stored(repository: Repository, key: str, size: int) -> Finding:
    check, subject = "the object is stored", f"{repository.name}:{key}"
    hint = "Restore from another repository; then take a new backup."
    try:
        info = repository.store.stat(key)
    except MissingObjectError:
        return Finding(check=check, subject=subject, verdict=Verdict.FAILED, detail="it is missing", hint=hint)
    except StorageError as failure:
        return Finding(check=check, subject=subject, verdict=Verdict.UNKNOWN, detail=failure.message, hint=failure.hint)
    if info.size_bytes != size:
        detail = f"it has {info.size_bytes} bytes and should have {size}"
        return Finding(check=check, subject=subject, verdict=Verdict.FAILED, detail=detail, hint=hint)
    return Finding(
        check=check,
        subject=subject,
        verdict=Verdict.OK,
        detail=f"{size} bytes",
        not_checked="the bytes themselves",
        left_to=Grade.INTACT,
    )


def check_bytes(manifest: Manifest, repository: Repository) -> list[Finding]:
    """Every stored byte of the artefact in ``repository`` is what was written. Needs no key."""
    findings = []
    for stored in manifest.objects:
        for key, size, digest in (
            (stored.key, stored.stored_bytes, stored.sha256),
            (stored.index.key, stored.index.stored_bytes, stored.index.sha256),
        ):
            check, subject = "every stored byte matches", f"{repository.name}:{key}"
            try:
                read_back(repository, key, size, digest)
            except (DamageError, MissingObjectError) as damage:
                findings.append(
                    Finding(
                        check=check,
                        subject=subject,
                        verdict=Verdict.FAILED,
                        detail=damage.message,
                        hint=_REPAIR,
                    )
                )
            except StorageError as failure:
                findings.append(
                    Finding(
                        check=check,
                        subject=subject,
                        verdict=Verdict.UNKNOWN,
                        detail=failure.message,
                        hint=failure.hint,
                    )
                )
            else:
                findings.append(
                    Finding(check=check, subject=subject, verdict=Verdict.OK, detail=f"{size} bytes, sha256")
                )
    return findings


def _plain_bytes(reader: ArtefactReader, stream: str) -> int:
    """How long a stream is when all of it is decrypted and decompressed."""
    counting = threading.Lock()
    total = 0

    def count(_: int, plain: bytes) -> None:
        nonlocal total
        with counting:
            total += len(plain)

    reader.each_frame(stream, count)
    return total


def _inside(reader: ArtefactReader, manifest: Manifest, check_content: ContentCheck) -> list[Finding]:
    """Every byte decrypts and decompresses to the length the manifest says, and the engine accepts the content."""
    findings = []
    for stored in manifest.objects:
        check = "it decrypts and decompresses"
        try:
            length = _plain_bytes(reader, stored.stream)
        except WrongKeyError:
            raise
        except RecoupError as damage:
            unread = isinstance(damage, StorageError) and not isinstance(damage, MissingObjectError)
            verdict = Verdict.UNKNOWN if unread else Verdict.FAILED
            findings.append(Finding(check=check, subject=stored.stream, verdict=verdict, detail=damage.message))
            continue
        verdict = Verdict.OK if length == stored.plain_bytes else Verdict.FAILED
        detail = f"{length} plain bytes" + ("" if verdict is Verdict.OK else f", not {stored.plain_bytes}")
        findings.append(Finding(check=check, subject=stored.stream, verdict=verdict, detail=detail))
    if overall(findings) is not Verdict.OK:
        return findings
    try:
        findings += check_content(reader)
    except WrongKeyError:
        raise
    except RecoupError as failure:
        findings.append(
            Finding(
                check="the content is what it says",
                subject=manifest.id,
                verdict=Verdict.FAILED if isinstance(failure, DamageError) else Verdict.UNKNOWN,
                detail=failure.message,
                hint=failure.hint,
            )
        )
    return findings
