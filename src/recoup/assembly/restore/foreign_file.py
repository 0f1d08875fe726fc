"""Restoring a dump file that another tool made (``postgres-backup-….sql.gz.enc``) into a database."""

from __future__ import annotations

import contextlib
from pathlib import Path

from recoup.assembly.access import read_key_file
from recoup.assembly.postgres import postgres_place
from recoup.assembly.restore.job import Report, Wish, without_secrets
from recoup.assembly.restore.runs import RestoreRuns
from recoup.assembly.system import System, state_folder
from recoup.engines.engine import ProgressListener
from recoup.engines.postgres.access import DirectAccess, ServerAccess
from recoup.engines.postgres.legacy_sql import restore_legacy
from recoup.engines.postgres.replace_database import Replacement
from recoup.kernel.errors import RecoupError, UsageError, WrongKeyError
from recoup.kernel.secret import Secret
from recoup.plan.services import PostgresService
from recoup.recovery.in_place import Consent
from recoup.repository.lease import hold_lease


def restore_file(
    path: Path,
    plan_file: Path | None,
    service: str | None,
    key_file: Path | None,
    wish: Wish,
    consent: Consent,
    on_progress: ProgressListener,
) -> Report:
    """Restore ``path`` into a fresh database that then takes the place of the old one, which is kept.

    The key is ``key_file``, else the plan's. Raise ``UsageError`` when it is not clear which server or database is
    meant; otherwise as ``restore_legacy`` does.
    """
    system = _system(plan_file, needed=wish.destination is None)
    name, access = _server(system, service, wish)
    database = wish.into or wish.database or _only_database(system, name)
    state = system.state_folder if system is not None else state_folder(access.place, "restore")
    key = read_key_file(key_file) if key_file is not None else _plan_key(system)
    with hold_lease(state, name or "postgres", f"restore of {path.name}"):
        runs, target = RestoreRuns(state), f"{access.place}/{database}"
        begun = runs.begin(path.name, target)
        replacement = Replacement(database=database, run_id=begun, force=consent.force)
        done = restore_legacy(access, path, key, replacement, progress=on_progress)
        runs.end(path.name, target)
    return Report(
        what=str(path),
        where=f"database {done.database} on {access.place}",
        kept=None if done.kept is None else f"database {done.kept}",
        findings=done.findings,
        notes=done.notes,
    )


def _system(plan_file: Path | None, *, needed: bool) -> System | None:
    if needed:
        return System.from_file(plan_file)
    with contextlib.suppress(RecoupError):  # with a destination the plan only helps with the key
        return System.from_file(plan_file)
    return None


def _server(system: System | None, service: str | None, wish: Wish) -> tuple[str | None, ServerAccess]:
    if wish.destination is not None:
        if not wish.destination.startswith(("postgresql://", "postgres://")):
            raise UsageError(
                f"a dump file cannot go to {without_secrets(wish.destination)}",
                hint="Give --destination postgresql://user@host:5432/postgres, or none and --service NAME.",
            )
        return service, DirectAccess(Secret(wish.destination))
    assert system is not None, "without a destination there is a plan"
    known = [name for name, one in system.plan.services.items() if isinstance(one, PostgresService)]
    if service is None and len(known) == 1:
        service = known[0]
    if service not in known:
        raise UsageError(
            f"which PostgreSQL? The plan has {', '.join(known) or 'none'}", hint="Add --service NAME or --destination."
        )
    return service, postgres_place(system, service).access


def _only_database(system: System | None, service: str | None) -> str:
    if system is not None and service is not None:
        databases = postgres_place(system, service).databases
        if len(databases) == 1:
            return databases[0]
    raise UsageError("into which database?", hint="Add --into NAME.")


def _plan_key(system: System | None) -> Secret | None:
    try:
        return None if system is None else system.key.text
    except WrongKeyError:
        return None  # the file may not be encrypted; when it is, that error says that a key is missing
