"""The history band of a copy: the fingerprints of the recovery points before it, by their manifests alone."""

from __future__ import annotations

from collections.abc import Sequence

from recoup.assembly.access import Found, Readable
from recoup.kernel.errors import RecoupError, RefusedError, WrongKeyError
from recoup.kernel.finding import Finding
from recoup.repository.catalog import REPLACED, Entry
from recoup.repository.manifest import Manifest
from recoup.verification.history import BAND, Counts, EarlierCopy, history_findings

#: Kinds whose fingerprints say the same of the same data, by engine.
_ALIKE = {"base": ("base", "incremental"), "incremental": ("base", "incremental")}


def history_of(opened: Readable, found: Found) -> list[Finding]:
    """Hold what ``found`` contains against the recovery points of its service before it. Restores nothing.

    Those of the same kind make the band; where there are none, those of another kind. Files have no fingerprints of
    this sort: nothing is found for them. Raise ``WrongKeyError``; everything else is a finding.
    """
    manifest = found.manifest
    if manifest.engine not in ("postgres", "redis"):
        return []
    unread: list[str] = []
    earlier = _band(opened, manifest, unread)
    return history_findings(_counts(manifest), earlier, subject=manifest.service, unread=unread)


def require_not_emptied(opened: Readable, found: Found) -> None:
    """Raise ``RefusedError`` when ``found``, which is the newest copy, holds nothing and one before it held something.

    After a loss, a service that was started empty is copied like any other; *latest* would then bring back nothing.
    """
    manifest = found.manifest
    if manifest.engine not in ("postgres", "redis"):
        return
    counts = _counts(manifest)
    if counts is None or any(one != 0 for one in counts.values()):  # None: not counted, so perhaps not empty
        return
    for before in _band(opened, manifest, []):
        held = sum(one or 0 for one in before.counts.values())
        if held:
            raise RefusedError(
                f"the newest copy of {manifest.service}, {manifest.id}, is empty, and {before.id} before it holds "
                f"{held} {'keys' if manifest.engine == 'redis' else 'rows'}",
                hint=f"Say which one: `recoup restore {before.id}`, or {manifest.id} if empty is what it should be.",
            )


def _band(opened: Readable, manifest: Manifest, unread: list[str]) -> list[EarlierCopy]:
    before = [
        one
        for one in opened.catalog().entries
        if one.service == manifest.service and one.begun < manifest.begun and one.label != REPLACED
    ]
    alike = [one for one in before if one.kind in _ALIKE.get(manifest.kind, (manifest.kind,))]
    return _earlier(opened, alike, unread) or _earlier(opened, [one for one in before if one not in alike], unread)


def _earlier(opened: Readable, entries: Sequence[Entry], unread: list[str]) -> list[EarlierCopy]:
    """The newest of them that were counted, the newest first."""
    found: list[EarlierCopy] = []
    for entry in entries[: 2 * BAND]:
        if len(found) == BAND:
            break
        try:
            counts = _counts(opened.find(entry.id, service=entry.service).manifest)
        except WrongKeyError:
            raise
        except RecoupError as failure:
            unread.append(f"{entry.id}: {failure.message}")
            continue
        if counts is None:
            unread.append(f"{entry.id} has no fingerprint")
        else:
            found.append(EarlierCopy(id=entry.id, counts=counts))
    return found


def _counts(manifest: Manifest) -> Counts | None:
    if manifest.fingerprint is None:
        return None
    if manifest.engine == "postgres":
        from recoup.engines.postgres.row_counts import row_counts

        return row_counts(manifest.fingerprint)
    from recoup.engines.redis.fingerprint import key_counts

    # A database without keys is in no fingerprint; the first one always is there.
    return {"database 0": 0} | {
        f"database {number}": count for number, count in key_counts(manifest.fingerprint).items()
    }
