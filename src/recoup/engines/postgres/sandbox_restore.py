"""Restoring a copy into a sandbox: a base backup (and what follows it) as a data folder, a dump into a new cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from recoup.engines.engine import Content, CopyReader
from recoup.engines.postgres.archive import ArchiveReader
from recoup.engines.postgres.database import apply_rights_and_settings, create_database
from recoup.engines.postgres.fill import fill_from_archive, fill_from_sql
from recoup.engines.postgres.fill_folder import fill_folder
from recoup.engines.postgres.place_chain import restore_chain_to_folder
from recoup.engines.postgres.place_files import writing_in
from recoup.engines.postgres.place_folder import PlacedFolder, restore_base_to_folder
from recoup.engines.postgres.placement import Destinations, lay_out
from recoup.engines.postgres.restore_database import create_roles, require_extensions
from recoup.engines.postgres.sandbox_access import SandboxAccess
from recoup.engines.postgres.sandbox_faults import lacking
from recoup.engines.postgres.sandbox_programs import Installation, find_sandbox_programs
from recoup.engines.postgres.sandbox_server import SandboxServer
from recoup.engines.postgres.session import Session, identifier, literal
from recoup.engines.sandbox import Sandbox
from recoup.kernel.errors import DamageError, EngineError, RecoupError, UncheckedError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.process import Command, run

RESTORED: Final = "it is restored into a new cluster"
_DATA: Final = "data"
_TEMPLATE: Final = "template1"
_INITDB_SECONDS: Final = 600.0
_TABLESPACE: Final = re.compile(r'CREATE TABLESPACE ("(?:[^"]|"")+"|[\w$]+) ', re.MULTILINE)
_NOT_CHECKED: Final = "what it holds: the grades sound and same look at that"


def is_dump(facts: Mapping[str, Any]) -> bool:
    """Whether a copy with these facts is a dump, and not a base backup."""
    return "format" in facts and isinstance(facts.get("databases"), Mapping)


def major_of(facts: Mapping[str, Any]) -> int:
    """The major version of the server that a copy with these facts is of."""
    return int(facts["server_major"] if is_dump(facts) else facts["major"])


def wanted_extensions(copy: CopyReader) -> frozenset[str]:
    """The names of the extensions that the databases of a copy have."""
    if is_dump(copy.facts):
        told = ((copy.fingerprint or {}).get("databases") or {}).values()
    else:
        told = copy.facts.get("databases") or ()
    return frozenset(str(name) for one in told for name in one.get("extensions") or ())


def restore_base(sandbox: Sandbox, chain: Sequence[CopyReader], programs: Sequence[Path]) -> PlacedFolder:
    """Restore the last of a chain of base backups into the sandbox, its tablespaces as well, and nothing elsewhere.

    For more than one, programs of this machine are needed, in the folders ``programs`` first. Raise ``DamageError``
    when the copy is not whole, ``UncheckedError`` for a copy without the WAL to start with.
    """
    if not chain[-1].facts.get("includes_wal", True):
        raise UncheckedError("the copy was taken without the WAL it needs to start")
    folder = sandbox.child(_DATA)
    if len(chain) > 1:
        found = find_sandbox_programs(sandbox, major_of(chain[-1].facts), programs)
        return restore_chain_to_folder(chain, folder, owner=sandbox.user, programs=[found, *programs])
    (copy,) = chain
    if copy.facts.get("since_lsn") is not None:
        raise DamageError("the copy is incremental: it is nothing without the backups that it builds on")
    archives = [lay_out(one.name, copy.members(one.name)) for one in copy.streams() if one.content is Content.TAR]

    def fill(destinations: Destinations, owner: tuple[int, int] | None) -> None:
        # Whether there is room was asked before, by who knows how much of it are holes.
        fill_folder(copy, archives, destinations, owner, 0, lambda _: None)

    return restore_base_to_folder(copy, folder, owner=sandbox.user, fill=fill)


# -- dumps ---------------------------------------------------------------------------------------------------------


def new_cluster(sandbox: Sandbox, installation: Installation) -> Path:
    """Make an empty cluster in the sandbox; its superuser is ``postgres``. Return its data folder."""
    folder = sandbox.child(_DATA)
    arguments = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    argv = [installation.program("initdb"), "-D", str(folder), *arguments]
    command = Command(argv=argv, environment={"LC_ALL": "C"}, folder=sandbox.folder, timeout_seconds=_INITDB_SECONDS)
    run(installation.inside(sandbox, command, False))
    return folder


def fill_cluster(server: SandboxServer, copy: CopyReader) -> list[Finding]:
    """Restore every database of a dump into a new cluster, with the roles and tablespaces of its globals.

    One finding for each database: *failed* when the dump does not go in, *unknown* when this machine lacks something.
    """
    access = SandboxAccess(server)
    notes: list[str] = []
    with access.session(_TEMPLATE) as session:  # any other may be one of the copy's
        notes += _prepare_globals(server, session, copy)
        return [_restored(access, session, copy, name, notes) for name in copy.facts["databases"]]


def _restored(access: SandboxAccess, session: Session, copy: CopyReader, name: str, notes: Sequence[str]) -> Finding:
    try:
        _fill_database(access, session, copy, name)
    except DamageError as damage:
        verdict, detail, hint = Verdict.FAILED, damage.message, damage.hint
    except EngineError as failure:
        missing = lacking(failure.message)
        verdict = Verdict.FAILED if missing is None else Verdict.UNKNOWN
        detail, hint = (failure.message, failure.hint) if missing is None else (missing.message, missing.hint)
        if re.search("killed by signal (?:9|15)|connection .* (?:lost|failed)", failure.message):
            verdict = Verdict.UNKNOWN
    except RecoupError as failure:
        verdict, detail, hint = Verdict.UNKNOWN, failure.message, failure.hint
    else:
        without = "".join(f"; {note}" for note in notes)
        return Finding(
            check=RESTORED, subject=name, verdict=Verdict.OK, detail=f"{copy.facts['format']} format",
            not_checked=_NOT_CHECKED + without, left_to="" if without else "same",
        )  # fmt: skip
    return Finding(check=RESTORED, subject=name, verdict=verdict, detail=detail, hint=hint)


def _fill_database(access: SandboxAccess, session: Session, copy: CopyReader, name: str) -> None:
    facts: Mapping[str, Any] = copy.facts["databases"][name]
    stream = str(facts["stream"])
    custom = copy.facts["format"] == "custom"
    contents = ArchiveReader(copy.read(stream)).contents() if custom else None
    fingerprint = ((copy.fingerprint or {}).get("databases") or {}).get(name)
    require_extensions(session, contents, fingerprint)
    owners = {entry.owner for entry in contents.entries if entry.owner} if contents is not None else set()
    owner = {str(facts["owner"])} if facts.get("owner") else set()
    _create_missing(session, {*map(str, facts.get("roles", ())), *owners, *owner})
    session.execute(f"DROP DATABASE IF EXISTS {identifier(name)}")
    create_database(session, name, facts)
    if custom:
        fill_from_archive(access, name, copy.read(stream))
    else:
        fill_from_sql(access, name, copy.read(stream))
    roles = {str(role) for (role,) in session.query("SELECT rolname FROM pg_roles")}
    apply_rights_and_settings(session, name, facts, roles)
    with access.session(name) as restored:
        # Without statistics the checks would meet plans made for empty tables.
        restored.execute("ANALYZE")


def _prepare_globals(server: SandboxServer, session: Session, copy: CopyReader) -> list[str]:
    """Make the roles and tablespaces that the copy's globals name. Return what there is to say about it."""
    told = copy.facts.get("globals")
    if not told:
        return ["roles and their rights: the copy does not hold them"]
    text = b"".join(copy.read(told["stream"])).decode()
    present = {str(name) for (name,) in session.query("SELECT rolname FROM pg_roles")}
    named = re.findall(r'^CREATE ROLE ("(?:[^"]|"")+"|[\w$]+)', text, re.MULTILINE)
    create_roles(session, text, [name for quoted in named if (name := _unquoted(quoted)) not in present])
    for number, quoted in enumerate(_TABLESPACE.findall(text)):
        place = server.sandbox.child(f"tablespace-{number}")
        session.execute(f"CREATE TABLESPACE {identifier(_unquoted(quoted))} LOCATION {literal(os.fspath(place))}")
    return []


def _unquoted(quoted: str) -> str:
    return quoted[1:-1].replace('""', '"') if quoted.startswith('"') else quoted


def _create_missing(session: Session, names: set[str]) -> None:
    """Roles that something belongs to and that the globals do not hold: without any right of their own."""
    present = {str(name) for (name,) in session.query("SELECT rolname FROM pg_roles")}
    for name in sorted(names - present):
        session.execute(f"CREATE ROLE {identifier(name)}")


def require_same_major(folder: Path, facts: Mapping[str, Any]) -> None:
    """Raise ``DamageError`` when a restored data folder is not of the major version that its manifest says."""
    with writing_in(folder):
        text = (folder / "PG_VERSION").read_text(errors="replace").strip()
    if text != str(facts["major"]):
        raise DamageError(f"the copy says it is of PostgreSQL {facts['major']}, and its PG_VERSION says {text[:20]!r}")
