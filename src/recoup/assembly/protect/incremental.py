"""What an incremental base backup builds on, and the chain that it is restored from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recoup.assembly.access import Found, Readable
from recoup.engines.postgres.earlier import TAKE_A_BASE, Earlier, earlier_backup
from recoup.kernel.errors import DamageError, RecoupError, RefusedError, UsageError, WrongKeyError
from recoup.kernel.finding import Verdict, overall
from recoup.repository.catalog import REPLACED, Catalog, Entry, read_catalog
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.proofs import Proofs
from recoup.repository.repository import Repository
from recoup.verification.expiry import held
from recoup.verification.verify import check_stored

#: The kinds of copies of which a chain consists. The first of a chain is always a ``base``.
KINDS: Final = ("base", "incremental")
#: More than this is never taken upon one base backup: a restore fetches and combines all of them.
LONGEST: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildsOn:
    """Finds the backup that the next incremental one of ``service`` builds on, when it is called.

    It is the newest whose whole chain is in every one of ``repositories``, as a repository alone must be enough to
    restore from; and none that a verification found damaged.
    """

    service: str
    repositories: tuple[Repository, ...]
    state_folder: Path

    def __call__(self) -> Earlier:
        """Raise ``RefusedError`` when there is none, with what is missing where."""
        catalog = read_catalog(self.repositories, self.state_folder)
        names = [one.name for one in self.repositories]
        reasons: list[str] = []
        for entry in candidates(catalog, self.service):
            reason = _unfit(entry, catalog, names) or self._damaged(entry)
            if reason is None:
                return self._earlier(entry)
            reasons.append(f"{entry.id}: {reason}")
        if not reasons:
            raise RefusedError(
                f"there is no base backup of {self.service} that an incremental one could build on", hint=TAKE_A_BASE
            )
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        raise RefusedError(
            f"no backup of {self.service} can be built on ({'; '.join(reasons[:3])}{more})", hint=TAKE_A_BASE
        )

    def _damaged(self, entry: Entry) -> str | None:
        for repository in self.repositories:
            proofs = Proofs(self.state_folder).of(repository.identity)
            for identifier in (entry.id, *entry.depends_on):
                if held(proofs.get(identifier, {}).values()).failed is not None:
                    return f"{identifier} was found damaged in {repository.name}"
                try:
                    findings = check_stored(repository.manifest(identifier), repository)
                except WrongKeyError:
                    raise
                except RecoupError as failure:
                    return f"{repository.name}: {failure.message}"
                if overall(findings) is not Verdict.OK:
                    wrong = next(one for one in findings if one.verdict is not Verdict.OK)
                    return f"{wrong.subject}: {wrong.detail}"
        return None

    def _earlier(self, entry: Entry) -> Earlier:
        manifest = self.repositories[0].manifest(entry.id)
        reader = ArtefactReader(manifest, self.repositories)
        return earlier_backup(entry.id, reader, chain=(*manifest.depends_on, entry.id))


def candidates(catalog: Catalog, service: str) -> Iterator[Entry]:
    """The base and incremental backups of ``service``, the newest first, without what a restore replaced."""
    for entry in catalog.entries:
        if entry.service == service and entry.kind in KINDS and entry.label != REPLACED:
            yield entry


def _unfit(entry: Entry, catalog: Catalog, names: Sequence[str]) -> str | None:
    by_id = {one.id: one for one in catalog.entries}
    if len(entry.depends_on) + 1 >= LONGEST:
        return f"{len(entry.depends_on)} backups follow its base already"
    for identifier in (entry.id, *entry.depends_on):
        held = by_id[identifier].repositories if identifier in by_id else ()
        if lacking := [name for name in names if name not in held]:
            return f"{identifier} is not in {', '.join(lacking)}"
    return None


def chain_of(opened: Readable, found: Found) -> tuple[ArtefactReader, ...]:
    """Readers of all that an artefact builds on, the oldest first, and of itself.

    Raise ``DamageError`` when one of them is nowhere, or its manifest cannot be believed.
    """
    manifest = found.manifest
    parts = []
    catalog = opened.catalog() if manifest.depends_on else None
    for identifier in manifest.depends_on:
        try:
            part = opened.find(identifier, catalog=catalog)
        except (UsageError, DamageError) as failure:
            raise DamageError(
                f"{manifest.id} is incremental, and {identifier}, without which it cannot be restored, is not there: "
                f"{failure.message}",
                hint="Restore the newest backup whose chain is whole: `recoup list` shows them, `recoup verify --all` "
                "says which are.",
            ) from failure
        parts.append(ArtefactReader(part.manifest, part.holders))
    return (*parts, ArtefactReader(manifest, found.holders))
