"""Bring a database back from a dump: into a fresh database, verified, then swapped in by rename."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recoup.engines.engine import CopyReader, Progress, ProgressListener
from recoup.engines.postgres.access import ServerAccess, open_maintenance
from recoup.engines.postgres.archive import ArchiveReader, Contents
from recoup.engines.postgres.comparison import CopyMode, compare
from recoup.engines.postgres.fill import fill_from_archive, fill_from_sql
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.engines.postgres.replace_database import Replaced, Replacement, replace_database
from recoup.engines.postgres.session import Session, identifier
from recoup.kernel.errors import DamageError, EngineError, RefusedError, UsageError
from recoup.kernel.finding import Finding, Verdict

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpRestore:
    """What to restore. ``source`` is the database's name in the copy; ``replacement`` names where it goes."""

    source: str
    replacement: Replacement
    create_roles: bool = False  #: create missing roles from the copy's globals


def restore_dump(
    access: ServerAccess, copy: CopyReader, request: DumpRestore, *, progress: ProgressListener | None = None
) -> Replaced:
    """Restore one database of a dump.

    Raise ``UsageError`` when the copy does not hold it, ``RefusedError`` when the target holds data without ``force``
    or roles are missing, ``EngineError`` for what the server or its programs refuse (an extension that is not
    installed, a full disk), ``DamageError`` when the restored data differ from the copied. In each case the database
    that was there is untouched.
    """
    facts = _facts_of(copy, request.source)
    stream = str(facts["stream"])
    total = next((info.plain_bytes for info in copy.streams() if info.name == stream), None)
    custom = copy.facts["format"] == "custom"
    fingerprint = ((copy.fingerprint or {}).get("databases") or {}).get(request.source)

    def pieces() -> Iterator[bytes]:
        return _counted(copy.read(stream), f"restore of {request.source}", total, progress)

    def fill(fresh: str) -> Sequence[str]:
        if custom:
            return fill_from_archive(access, fresh, pieces())
        return fill_from_sql(access, fresh, pieces()).notes

    with open_maintenance(access) as session:
        contents = ArchiveReader(copy.read(stream)).contents() if custom else None
        require_extensions(session, contents, fingerprint)
        require_roles(session, copy, facts, contents, create=request.create_roles)
    return replace_database(
        access,
        request.replacement,
        like=facts,
        fill=fill,
        verify=lambda session: verify_restored(session, fingerprint),
    )


def verify_restored(session: Session, fingerprint: Mapping[str, Any] | None) -> list[Finding]:
    """Compare the restored database with the fingerprint of the copy. Raise ``DamageError`` for any difference."""
    if fingerprint is None:
        return [
            Finding(
                check="the content equals the copied one",
                subject=session.place,
                verdict=Verdict.UNKNOWN,
                detail="the copy carries no fingerprint",
            )
        ]
    findings = compare(fingerprint, fingerprint_database(session), mode=CopyMode.LOGICAL)
    bad = [finding for finding in findings if finding.verdict is Verdict.FAILED]
    if bad:
        listed = "; ".join(f"{finding.subject}: {finding.detail}" for finding in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DamageError(
            f"the restored database differs from the copied one: {listed}{more}",
            hint="Nothing was replaced. Restore an older copy, or the same one from another repository.",
        )
    return findings


def _facts_of(copy: CopyReader, source: str) -> Mapping[str, Any]:
    databases: Mapping[str, Any] = copy.facts.get("databases") or {}
    if source not in databases:
        raise UsageError(
            f"the copy holds no database {source!r}", hint=f"It holds: {', '.join(sorted(databases)) or 'none'}."
        )
    facts: Mapping[str, Any] = databases[source]
    return facts


def _counted(
    pieces: Iterable[bytes], what: str, total: int | None, progress: ProgressListener | None
) -> Iterator[bytes]:
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        if progress is not None:
            progress(Progress(what=what, done_bytes=done, total_bytes=total))


def require_extensions(session: Session, contents: Contents | None, fingerprint: Mapping[str, Any] | None) -> None:
    """Raise ``EngineError`` naming every extension that the copy needs and the server does not have."""
    wanted = set((fingerprint or {}).get("extensions", {}))
    if contents is not None:
        wanted |= {entry.name for entry in contents.entries if entry.kind == "EXTENSION"}
    available = {str(name) for (name,) in session.query("SELECT name FROM pg_available_extensions")}
    missing = sorted(wanted - available)
    if missing:
        raise EngineError(
            f"the server lacks extensions that the copy needs: {', '.join(missing)}",
            hint="Install the packages that hold them on the server (the same image as production has them), "
            "then run again. Nothing was changed.",
        )


def require_roles(
    session: Session, copy: CopyReader | None, facts: Mapping[str, Any], contents: Contents | None, *, create: bool
) -> None:
    """Raise ``RefusedError`` naming every missing role, or create them from the copy's globals when asked."""
    wanted = set(facts.get("roles", ()))
    if facts.get("owner"):
        wanted.add(str(facts["owner"]))
    if contents is not None:
        wanted |= {entry.owner for entry in contents.entries if entry.owner}
    present = {str(name) for (name,) in session.query("SELECT rolname FROM pg_roles")}
    missing = sorted(wanted - present)
    if not missing:
        return
    global_facts = None if copy is None else copy.facts.get("globals")
    if create and copy is not None and global_facts:
        create_roles(session, b"".join(copy.read(global_facts["stream"])).decode(), missing)
        return
    raise RefusedError(
        f"roles that own or use what is restored are missing: {', '.join(missing)}",
        hint="Create them with CREATE ROLE, or ask for them to be created from the copy (--create-roles)."
        if global_facts
        else "Create them with CREATE ROLE; the copy does not hold roles.",
    )


_ROLE_LINE = re.compile(r'(CREATE ROLE|ALTER ROLE|GRANT) ("(?:[^"]|"")+"|[\w$]+)(.*);', re.DOTALL)


def create_roles(session: Session, globals_sql: str, names: Sequence[str]) -> None:
    """Create the roles ``names`` as pg_dumpall wrote them, with passwords and memberships. Others stay as they are.

    Raise ``RefusedError`` when ``globals_sql`` does not hold one of them.
    """
    wanted = set(names)
    statements: list[str] = []
    created: set[str] = set()
    for line in globals_sql.splitlines():
        match = _ROLE_LINE.fullmatch(line.strip())
        if match is None:
            continue
        verb, quoted, rest = match.groups()
        role = quoted[1:-1].replace('""', '"') if quoted.startswith('"') else quoted
        if verb == "CREATE ROLE" and role in wanted:
            created.add(role)
        if verb != "GRANT" and role in wanted:
            statements.append(f"{verb} {identifier(role)}{rest}")
        elif verb == "GRANT" and (member := re.match(r' TO ("(?:[^"]|"")+"|[\w$]+)', rest)):
            name = member[1][1:-1].replace('""', '"') if member[1].startswith('"') else member[1]
            # Who granted it is left to this server: the grantor of another cluster may not exist here.
            if name in wanted:
                option = " WITH ADMIN OPTION" if re.search(r"WITH ADMIN (OPTION|TRUE)", rest) else ""
                statements.append(f"GRANT {identifier(role)} TO {identifier(name)}{option}")
    absent = sorted(wanted - created)
    if absent:
        raise RefusedError(
            f"the copy's globals do not hold the roles {', '.join(absent)}", hint="Create them with CREATE ROLE."
        )
    session.execute("BEGIN")
    try:
        for statement in statements:
            session.execute(statement)
        session.execute("COMMIT")
    except EngineError:
        session.execute("ROLLBACK")
        raise
