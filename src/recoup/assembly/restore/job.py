"""What a restore is asked to do, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recoup.assembly.access import Found, Readable
from recoup.engines.engine import CopyReader, ProgressListener
from recoup.kernel.finding import Finding
from recoup.recovery.in_place import Consent
from recoup.repository.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked for. ``destination`` is a folder or a server's address; None is where the service lives."""

    destination: str | None = None
    database: str | None = None  #: which database of a dump; None when it has one only
    into: str | None = None  #: under which name a database is restored
    create_roles: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was restored where, what is kept of the old, and what was checked."""

    what: str
    where: str
    kept: str | None
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


class RestoreReader(CopyReader, Protocol):
    """What is restored: an artefact as it was stored, or what was built from one."""

    def passed_over(self) -> tuple[str, ...]:
        """What was damaged or missing in one repository and came from another, for the report."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One restore: the artefact, what is wished and allowed, and whom to tell."""

    opened: Readable
    found: Found
    reader: RestoreReader
    wish: Wish
    consent: Consent
    say: Callable[[str], None]
    on_progress: ProgressListener

    @property
    def manifest(self) -> Manifest:
        """The artefact's manifest."""
        return self.found.manifest

    @property
    def subject(self) -> str:
        """The artefact, for people."""
        return f"{self.manifest.service} {self.manifest.kind} {self.manifest.id}"


def is_address(destination: str) -> bool:
    """Whether a destination is a server's address, and not a folder."""
    return destination.startswith(("postgresql://", "postgres://", "redis://", "rediss://", "unix://"))


def without_secrets(address: str) -> str:
    """An address as it may be shown."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def names_a_file(reference: str) -> bool:
    """Whether what the user wants restored is a file and not an artefact: it exists, or it is named like one."""
    return "/" in reference or reference.endswith((".sql", ".dump", ".gz", ".enc")) or Path(reference).is_file()
